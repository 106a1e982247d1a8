//! The command line: clap types only, one file per command; no I/O.

pub mod clone;
pub mod completions;
pub mod cp;
pub mod events;
pub mod exec;
pub mod fork;
pub mod gc;
pub mod health;
pub mod image;
pub mod inspect;
pub mod kill;
pub mod login;
pub mod logs;
pub mod ls;
pub mod machine;
pub mod network;
pub mod podman;
pub mod port;
pub mod registry;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod setup;
pub mod size;
pub mod snapshot;
pub mod stats;
pub mod stop;
pub mod top;
pub mod volume;
pub mod wait;
pub mod warm;

use clap::{Parser, Subcommand};

/// Run OCI containers with Podman, each in a microVM of its own.
#[derive(Debug, Parser)]
#[command(name = "fcvm", version, about, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, clap::Args)]
pub struct Global {
    /// Directory for kernels, images and VMs [default: /var/lib/fcvm as root, else $XDG_DATA_HOME/fcvm]
    #[arg(long, global = true, env = "FCVM_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<std::path::PathBuf>,
    /// How log lines are written to standard error (which ones: RUST_LOG)
    #[arg(long, global = true, value_enum, default_value_t, env = "FCVM_LOG_FORMAT")]
    pub log_format: LogFormat,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run containers
    #[command(subcommand)]
    Podman(podman::Command),
    Ls(ls::Args),
    Exec(exec::Args),
    Fork(Box<fork::Args>),
    Cp(cp::Args),
    Logs(logs::Args),
    Top(top::Args),
    Stop(stop::Args),
    Restart(restart::Args),
    Kill(kill::Args),
    Wait(wait::Args),
    Rename(rename::Args),
    Rm(rm::Args),
    Inspect(inspect::Args),
    Stats(stats::Args),
    Port(port::Args),
    Events(events::Args),
    Gc(gc::Args),
    Login(login::Login),
    Logout(login::Logout),
    /// Manage images
    #[command(subcommand)]
    Image(image::Command),
    /// Manage named volumes
    #[command(subcommand)]
    Volume(volume::Command),
    /// Manage snapshots of VMs
    #[command(subcommand)]
    Snapshot(snapshot::Command),
    /// Install kernel, base disk and initrd
    Setup(setup::Args),
    Completions(completions::Args),
}
