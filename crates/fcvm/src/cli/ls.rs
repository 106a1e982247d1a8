//! `fcvm ls`.

/// List the VMs that run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that have exited
    #[arg(short, long)]
    pub all: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,
    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,
}
