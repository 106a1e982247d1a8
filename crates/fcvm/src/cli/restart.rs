//! `fcvm restart`.

use super::stop::Grace;

/// End containers and run them once more, with the files that they have written.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required_unless_present = "all", value_name = "VM")]
    pub vms: Vec<String>,
    /// All that run
    #[arg(short, long, conflicts_with = "vms")]
    pub all: bool,
    /// How long a container has before it is killed; -1 for ever
    #[arg(short, long, default_value = "10", value_name = "SECONDS", allow_negative_numbers = true)]
    pub time: Grace,
}
