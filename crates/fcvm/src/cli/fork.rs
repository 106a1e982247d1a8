//! `fcvm fork`.

use std::path::PathBuf;

use super::{
    network::Network,
    podman::{Hostname, LogSize},
};
use crate::state::VmName;

/// Start VMs that go on from where a VM is now, in the background, and print their ids.
///
/// A snapshot and its clones in one step: the VM itself stands still for some milliseconds and goes on, and no
/// snapshot is left to remove. Each of the others has a name, an id, a network, ports and a disk of its own.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub struct Args {
    /// The VM: its name, or how its id begins
    pub vm: String,
    /// How many [default: 1]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: Option<u16>,
    /// Name of the new VM [default: generated]; with --count its beginning
    #[arg(long)]
    pub name: Option<VmName>,
    /// Host name in the container [default: that of the VM if it was given one, else the new VM's short id]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<Hostname>,
    /// Remove the new VM's record and log when it ends
    #[arg(long)]
    pub rm: bool,
    /// How long the container's log may get, with a unit: b, k, m or g; the oldest goes first
    #[arg(long, default_value = "100m", value_name = "SIZE")]
    pub log_max_size: LogSize,
    /// Firecracker's program, where the VM is one that Firecracker runs
    #[arg(long, env = "FCVM_FIRECRACKER", value_name = "FILE")]
    pub firecracker: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Network")]
    pub network: Network,
    /// The snapshot, for the processes of the new VMs
    #[arg(long, hide = true)]
    pub unnamed: Option<String>,
}
