//! `fcvm rm`.

/// Remove VMs that have exited: their records and logs.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required_unless_present = "all", value_name = "VM")]
    pub vms: Vec<String>,
    /// All that have exited; with --force, all
    #[arg(short, long, conflicts_with = "vms")]
    pub all: bool,
    /// Kill those that run, and do not mind those that are not there
    #[arg(short, long)]
    pub force: bool,
}
