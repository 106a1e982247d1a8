//! `fcvm exec`.

use std::path::PathBuf;

use crate::vm::DetachKeys;

/// Run a command in a VM that runs.
///
/// In its container, or with --vm beside it. Exits with the command's status; 125 where fcvm failed,
/// 126 where the command cannot be executed, 127 where there is no such command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name or id of the VM
    #[arg(required_unless_present = "pid", value_name = "VM")]
    pub vm: Option<String>,
    /// Command and arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,

    /// The VM of this fcvm process, in place of a name
    #[arg(long, value_name = "PID")]
    pub pid: Option<i32>,
    /// In the container: as without it
    #[arg(short, long, conflicts_with = "machine")]
    pub container: bool,
    /// In the VM itself, beside the container
    #[arg(long = "vm", id = "machine")]
    pub machine: bool,
    /// Forward standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// A terminal for the command
    #[arg(short, long)]
    pub tty: bool,
    /// Leave the command to itself once it runs
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    pub detach: bool,
    /// Keys that leave a command with -it to itself; an empty text for none
    #[arg(long, default_value_t, value_name = "KEYS")]
    pub detach_keys: DetachKeys,
    /// Set an environment variable; without a value, the host's; NAME* all that begin so
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User, by names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// All capabilities
    #[arg(long)]
    pub privileged: bool,
}
