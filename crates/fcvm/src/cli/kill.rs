//! `fcvm kill`.

use crate::process::SignalNumber;

/// Send a signal to the first process of containers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required_unless_present = "all", value_name = "VM")]
    pub vms: Vec<String>,
    /// All that run
    #[arg(short, long, conflicts_with = "vms")]
    pub all: bool,
    /// The signal, by name or number
    #[arg(short, long, default_value = "KILL")]
    pub signal: SignalNumber,
}
