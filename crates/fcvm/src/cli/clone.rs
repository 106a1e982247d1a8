//! Snapshots of VMs that run, and VMs that go on from snapshots.

use std::path::PathBuf;

use super::{
    network::Network,
    podman::{Hostname, LogSize},
};
use crate::{snapshot::SnapshotTag, state::VmName};

/// Make a snapshot of a VM that runs: of its memory, devices and disk.
///
/// The VM stands still for some milliseconds, and goes on. `fcvm snapshot run` starts others that go on from
/// the same moment; where only the disk was saved, others that boot with it.
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The VM: its name, or how its id begins
    #[arg(required_unless_present = "pid")]
    pub vm: Option<String>,
    /// The VM, by the PID of its fcvm process
    #[arg(long, conflicts_with = "vm")]
    pub pid: Option<i32>,
    /// What the snapshot is to be called
    #[arg(long)]
    pub tag: SnapshotTag,
    /// Save the disk alone: a clone boots, and its container starts again with the files that it had written
    #[arg(long)]
    pub disk_only: bool,
    /// Share with this snapshot what of the memory is the same, so that only the difference takes space: where
    /// the data directory is on btrfs or XFS
    #[arg(long, value_name = "BASE_TAG", conflicts_with = "disk_only")]
    pub diff: Option<SnapshotTag>,
    /// Print how long it took to standard error, and how long the VM stood still
    #[arg(long)]
    pub timings: bool,
}

/// Where a clone's memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum MemoryBackend {
    /// The snapshot's file, mapped by the hypervisor
    File,
    /// A page server, by userfaultfd
    Uffd,
}

/// Serve a snapshot to clones, until this process ends: they end first.
///
/// Prints its PID, for `fcvm snapshot run --pid`. Several may serve one snapshot.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// The snapshot
    pub tag: SnapshotTag,
    /// Give each clone the pages it asks for, and none before: not those that the first one asked for
    #[arg(long)]
    pub no_prefetch: bool,
}

/// Start a VM that goes on from a snapshot: a clone.
///
/// It has a name, an id, a network, ports and a disk of its own, the host's time, and other random numbers.
/// What was running runs on from where it was; connections to others are gone. From a snapshot of a disk alone
/// it boots, and the container starts again.
#[derive(Debug, clap::Args)]
#[command(args_override_self = true)]
pub struct Run {
    /// The snapshot, straight from its files
    #[arg(long, value_name = "TAG", required_unless_present = "pid")]
    pub snapshot: Option<SnapshotTag>,
    /// The snapshot that this process serves, which `fcvm snapshot serve` printed: the VM ends with it
    #[arg(long, value_name = "SERVE_PID", conflicts_with = "snapshot")]
    pub pid: Option<i32>,
    /// How the VM gets its memory: from the file, or page by page from the server of --pid, which Firecracker
    /// takes [default: file]
    #[arg(long, value_enum, value_name = "HOW")]
    pub mem_backend: Option<MemoryBackend>,
    /// Name of the VM [default: generated]; with --count its beginning
    #[arg(long)]
    pub name: Option<VmName>,
    /// Host name in the container [default: that of the saved VM if it was given one, else the VM's short id]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<Hostname>,
    /// Give the container our standard input: one that was started with -i, in the background mostly
    #[arg(short, long, conflicts_with_all = ["detach", "exec"])]
    pub interactive: bool,
    /// Insist on the terminal that the container has since it was started, which is ours then
    #[arg(short, long, conflicts_with_all = ["detach", "exec"])]
    pub tty: bool,
    /// Run in the background, and print the VM's id
    #[arg(short, long)]
    pub detach: bool,
    /// Remove the VM's record and log when it ends: in the foreground always so
    #[arg(long)]
    pub rm: bool,
    /// Start so many, in the background
    #[arg(short = 'n', long, requires = "detach", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub count: Option<u16>,
    /// Run a shell's command in the container, end the VM then, and exit with the command's status
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["detach", "count"])]
    pub exec: Option<String>,
    /// How long the container's log may get, with a unit: b, k, m or g; the oldest goes first
    #[arg(long, default_value = "100m", value_name = "SIZE")]
    pub log_max_size: LogSize,
    /// Print where the time went to standard error
    #[arg(long)]
    pub timings: bool,
    /// Firecracker's program, where the snapshot is of a VM that Firecracker ran
    #[arg(long, env = "FCVM_FIRECRACKER", value_name = "FILE")]
    pub firecracker: Option<PathBuf>,
    /// Guest agent, where the snapshot is of a disk alone [default: fc-agent beside fcvm or in ../libexec/fcvm]
    #[arg(long, env = "FCVM_AGENT", value_name = "FILE")]
    pub agent: Option<PathBuf>,
    #[command(flatten, next_help_heading = "Network")]
    pub network: Network,
}
