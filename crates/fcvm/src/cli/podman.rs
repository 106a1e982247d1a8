//! `fcvm podman`.

use std::{path::PathBuf, str::FromStr};

use super::{
    health::Health, machine::Machine, network::Network, registry::Access, setup::Sources, size, warm::Warm,
};
use crate::{
    hypervisor::Choice,
    image::{ImageRef, PullPolicy},
    state::{RestartPolicy, VmName},
    vm::{DetachKeys, log::LEAST_LIMIT},
    volume::{MountSpec, VolumeSpec},
};

/// Subcommands of `fcvm podman`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    Run(Box<Run>),
    /// Prepare a VM from which runs like this one start warm.
    ///
    /// It takes the arguments of `fcvm podman run`, and runs nothing: what is prepared is for all runs of the image
    /// that differ only in command, entry point, environment, working directory, labels, names and ports.
    /// `fcvm podman run` does the same by itself, in the background, after the first such run.
    Prepare(Box<Run>),
}

/// Run a container in a microVM of its own.
///
/// Options are Podman's where Podman has them. Exits with the container's
/// status; 125 where fcvm failed, 126 where the command cannot be executed, 127
/// where the image has no such command, 128+N where signal N ended it.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// Image: a name, an id, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME],
    /// containers-storage:NAME or docker-daemon:NAME
    pub image: ImageRef,
    /// Command and arguments [default: the image's]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,

    /// Name of the VM [default: generated]
    #[arg(long)]
    pub name: Option<VmName>,
    /// Set an environment variable; without a value, the host's; NAME* all that begin so
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User in the container, by names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Replace the image's entry point: a program, a JSON array, or nothing
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub entrypoint: Option<String>,
    /// Host name in the container [default: the VM's short id]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<Hostname>,
    /// Label of the container
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
    /// All capabilities and devices of the VM
    #[arg(long)]
    pub privileged: bool,
    /// Read-only root file system
    #[arg(long)]
    pub read_only: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "DIR[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Mount a directory or file of the host, or a named volume; without a source, a volume of the VM's
    /// own. Options: ro, cache=auto|always|none|exclusive, idmap=auto|same|ranges|squash, uid=N, gid=N,
    /// watch=on|off, nocopy and Podman's
    #[arg(short, long, visible_alias = "map", value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub volume: Vec<VolumeSpec>,
    /// Mount a bind, volume or tmpfs, as Podman's --mount
    #[arg(long, value_name = "type=TYPE,target=DIR,…")]
    pub mount: Vec<MountSpec>,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// Set a resource limit
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    /// Forward standard input
    #[arg(short, long)]
    pub interactive: bool,
    /// A terminal for the container
    #[arg(short, long)]
    pub tty: bool,
    /// Keys that leave a container with -it to itself, in the background; an empty text for none
    #[arg(long, default_value_t, value_name = "KEYS")]
    pub detach_keys: DetachKeys,
    /// Run in the background, and print the VM's id once the container runs
    #[arg(short, long)]
    pub detach: bool,
    /// Remove the VM's record and log when it ends: in the foreground always so
    #[arg(long)]
    pub rm: bool,
    /// Run the container again when it has ended: no, on-failure[:N], always or unless-stopped
    #[arg(long, default_value_t, value_name = "POLICY")]
    pub restart: RestartPolicy,
    /// Kill the container when it has run for so long; its status is then 255
    #[arg(long, value_name = "SECONDS")]
    pub timeout: Option<u32>,
    /// Write the VM's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// Write the PID of the VM's fcvm process to a file
    #[arg(long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// How long the container's log may get, with a unit: b, k, m or g; the oldest goes first
    #[arg(long, default_value = "100m", value_name = "SIZE")]
    pub log_max_size: LogSize,
    /// When to fetch the image
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub pull: PullPolicy,
    #[command(flatten)]
    pub access: Access,
    #[command(flatten, next_help_heading = "Warm start")]
    pub warm: Warm,
    #[command(flatten, next_help_heading = "Health")]
    pub health: Health,
    #[command(flatten, next_help_heading = "Network")]
    pub network: Network,

    /// Virtual CPUs
    #[arg(long, default_value = "2", value_name = "N", value_parser = clap::value_parser!(u8).range(1..=32), help_heading = "Machine")]
    pub cpus: u8,
    /// Memory, with a unit: b, k, m or g
    #[arg(short, long, default_value = "1g", help_heading = "Machine")]
    pub memory: Memory,
    #[command(flatten, next_help_heading = "Machine")]
    pub machine: Machine,
    /// Hypervisor
    #[arg(long, value_enum, default_value_t, env = "FCVM_HYPERVISOR", help_heading = "Machine")]
    pub hypervisor: Choice,
    /// Firecracker's program [default: in PATH, else what fcvm setup downloaded]
    #[arg(long, env = "FCVM_FIRECRACKER", value_name = "FILE", help_heading = "Machine")]
    pub firecracker: Option<PathBuf>,
    /// More parameters for the guest's kernel; may be repeated
    #[arg(long, value_name = "PARAMETERS", allow_hyphen_values = true, help_heading = "Machine")]
    pub kernel_args: Vec<String>,
    /// Who makes the image's disk where it is not there yet
    #[arg(long, value_enum, default_value_t, value_name = "WHO", help_heading = "Machine")]
    pub disk_builder: Builder,
    /// Do what `fcvm setup` does where that is missing
    #[arg(long, help_heading = "Machine")]
    pub setup: bool,
    #[command(flatten, next_help_heading = "Machine")]
    pub sources: Sources,
    /// Print where the time went, on standard error
    #[arg(long, help_heading = "Machine")]
    pub timings: bool,
}

/// Who makes an image's disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Builder {
    /// The host, and for what it does not understand a guest
    #[default]
    Auto,
    /// The host only
    Host,
    /// A guest's Podman
    Guest,
}

/// A host name: up to 63 letters, digits, `-` and `.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hostname(pub String);

impl FromStr for Hostname {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        let ends = |c: char| c.is_ascii_alphanumeric();
        if (1..=63).contains(&text.len())
            && text.chars().all(allowed)
            && text.starts_with(ends)
            && text.ends_with(ends)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err("a host name is up to 63 letters, digits, `-` or `.`, a letter or digit at both ends")
        }
    }
}

/// An amount of memory, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory(pub u32);

impl Memory {
    /// Less does not boot.
    const LEAST_MIB: u32 = 192;
}

impl FromStr for Memory {
    type Err = String;

    /// As Podman: a number and a unit of 1024, bytes without one. Rounded up to MiB.
    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = size::parse(text).ok_or("an amount of memory is a number and a unit: 512m, 2g")?;
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).map_err(|_| "no machine has that much memory")?;
        if mib < Self::LEAST_MIB {
            return Err(format!(
                "a VM needs {} MiB at least (a number without a unit is bytes: write 512m)",
                Self::LEAST_MIB
            ));
        }
        Ok(Self(mib))
    }
}

/// The length of a log, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSize(pub u64);

impl FromStr for LogSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes = size::parse(text).ok_or("a size is a number and a unit: 10m, 1g")?;
        if bytes < LEAST_LIMIT {
            return Err(format!("a log needs {} KiB at least", LEAST_LIMIT >> 10));
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command as Top};

    fn run(arguments: &[&str]) -> Box<Run> {
        let all = ["fcvm", "podman", "run"].iter().chain(arguments);
        let Top::Podman(Command::Run(run)) = Cli::try_parse_from(all).unwrap().command else {
            panic!("no run")
        };
        run
    }

    #[test]
    fn what_follows_the_image_is_the_command_however_it_looks() {
        for (arguments, command) in [
            (&["i"][..], &[][..]),
            (&["i", "sh", "-c", "x"], &["sh", "-c", "x"]),
            (&["i", "--", "sh", "-c", "x"], &["sh", "-c", "x"]),
            (&["i", "sh", "--", "-e", "x"], &["sh", "--", "-e", "x"]),
            (&["--", "i", "sh", "--name"], &["sh", "--name"]),
            (&["-e", "A=b", "i", "env", "-i"], &["env", "-i"]),
        ] {
            assert_eq!(run(arguments).command, command, "{arguments:?}");
        }
    }

    #[test]
    fn memory_is_a_number_with_a_unit() {
        for (text, mib) in [("512m", 512), ("1g", 1024), ("1G", 1024), ("268435457", 257), ("300000k", 293)] {
            assert_eq!(text.parse(), Ok(Memory(mib)), "{text}");
        }
        for bad in ["", "m", "1x", "-1g", "1.5g", "512", "64m", "99999999999g", "99999999999999999999"] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
    }

    #[test]
    fn host_names_are_checked() {
        assert!("web-1.local".parse::<Hostname>().is_ok());
        for bad in ["", "-a", "a.", "a b", "a\nb", &"x".repeat(64)] {
            assert!(bad.parse::<Hostname>().is_err(), "{bad:?}");
        }
    }
}
