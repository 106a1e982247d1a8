//! `fcvm completions`.

/// Print a script that completes fcvm's command line in a shell.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    pub shell: clap_complete::Shell,
}
