//! Hypervisors: one trait, a folder each.
//!
//! A backend is asked for its [`Capabilities`] and its readiness first, so that
//! nothing fails half way; then it [launches](Hypervisor::launch) a machine and
//! hands out its parts. What happens in the machine is [`vm`](crate::vm)'s.

mod check;
mod error;
pub mod firecracker;
mod host;
mod jail;
mod nic;
mod options;
mod process;
mod qemu;
mod saving;
mod select;
mod telling;

use std::{
    fmt,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitStatus,
};

use fcvm_proto::{Interface, session::LinkKey};
use serde_json::Value;
use tokio::{net::UnixStream, sync::watch};

use crate::{snapshot::Engine, storage::DataDir};

pub use check::Request;
pub use error::HypervisorError;
pub use host::{HostMemory, HugePages, Virtualization, virtualization};
pub use jail::{CgroupSetting, Jail, JailUser};
pub use nic::{Nic, NicBackend};
pub use options::{CpuTemplate, DiskLimits, MachineOptions, Pages};
pub use process::VmmProcess;
pub use saving::{Save, Saved, Saving};
pub use select::{Choice, Selection, Wanted, select};
pub use telling::{GuestMemory, Traffic, guest_memory, traffic};

/// A kind of virtual machine.
pub trait Hypervisor: std::fmt::Debug {
    /// Its name, as `--hypervisor` takes it.
    fn name(&self) -> &'static str;

    /// What it can do here.
    fn capabilities(&self) -> Capabilities;

    /// Whether it can have a machine with these options here, as far as that takes more than its
    /// capabilities.
    ///
    /// # Errors
    /// What is in the way.
    fn ready(&self, options: &MachineOptions) -> Result<(), HypervisorError> {
        let _ = options;
        Ok(())
    }

    /// Starts a machine. Must be called on a thread that lives as long as the
    /// machine: it dies with that thread.
    ///
    /// # Errors
    /// Where the process or its sockets cannot be made.
    fn launch(&self, machine: &MachineConfig) -> Result<Machine, HypervisorError>;

    /// Another pipe to the agent of a machine that runs, after the one before broke: each is a
    /// session of its own.
    fn reconnect(&self, runtime_dir: &Path) -> Connecting;

    /// Another stream to the guest, beside the link's one pipe, which has its own flow control and ends
    /// alone. `None` where all goes over the link.
    fn stream(&self, runtime_dir: &Path) -> Option<Connecting> {
        let _ = runtime_dir;
        None
    }

    /// What it is, for states that only the same can load.
    ///
    /// # Errors
    /// Where its version cannot be found out.
    fn engine(&self, data: &DataDir) -> Result<Engine, HypervisorError>;

    /// What it means that the process of a machine ended so, with these last messages.
    fn death(&self, status: ExitStatus, messages: &str) -> Death;
}

/// What a hypervisor can do on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether guest code runs on the CPU itself.
    pub accelerated: bool,
    /// Virtual CPUs a machine may have.
    pub max_cpus: u8,
    /// How a guest's CPU time relates to the host's, for waits: 1 native, 10 emulated.
    pub slowness: u32,
    /// Whether a machine's memory can be taken back and asked about.
    pub balloon: bool,
    /// Whether a machine's memory can lie in huge pages.
    pub huge_pages: bool,
    /// Whether a guest can be shown another CPU.
    pub cpu_templates: bool,
    /// Whether a jailer can start a machine.
    pub jailer: bool,
    /// Whether a network interface can be behind a socket, and not only a tap.
    pub stream_network: bool,
    /// Whether a page server can fill a machine's memory.
    pub page_server: bool,
}

/// A machine to be made: plain data.
#[derive(Debug, Clone)]
pub struct MachineConfig {
    /// For the process list and logs.
    pub name: String,
    /// Its alone among all: random, in hexadecimal digits, at least eight.
    pub id: String,
    /// Kernel image.
    pub kernel: PathBuf,
    /// Initial RAM file system.
    pub initrd: PathBuf,
    /// Kernel parameters of the user, appended to the backend's own.
    pub kernel_arguments: Option<String>,
    /// Opens sessions with the agent.
    pub link_key: LinkKey,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// In the order that the guest expects.
    pub disks: Vec<Disk>,
    /// Its network interface, if it has one.
    pub network: Option<Nic>,
    /// What it has beyond the usual.
    pub options: MachineOptions,
    /// What the guest is told of itself when it asks the metadata service, where the hypervisor has one.
    pub metadata: Option<Value>,
    /// Directory for sockets: short, private, there.
    pub runtime_dir: PathBuf,
    /// Directory for what is saved of it: empty, on a disk, the machine's own.
    pub save_dir: PathBuf,
    /// What it goes on from, instead of booting.
    pub saved: Option<Saved>,
}

/// A disk of a machine.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Tells the guest which it is.
    pub serial: String,
    /// A raw image.
    pub path: PathBuf,
    /// Who may write it.
    pub access: Access,
    /// How much of it the machine may move.
    pub limits: DiskLimits,
}

/// How a machine uses a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Shared by any number of machines.
    ReadOnly,
    /// This machine's own, gone with it: the guest's flushes need not reach the device.
    Ephemeral,
    /// Written to be kept.
    Durable,
}

/// A started machine: the ends of its connections. Dropped, it is killed.
#[derive(Debug)]
pub struct Machine {
    /// The hypervisor's process.
    pub process: VmmProcess,
    /// Makes it run, where that takes more than its process, and leads to the agent.
    pub link: Connecting,
    /// What the guest writes to its serial console. To be read all the time.
    pub console: OwnedFd,
    /// What the hypervisor itself writes. To be read all the time.
    pub messages: OwnedFd,
    /// Why the machine stopped, as far as the hypervisor tells.
    pub stopped: watch::Receiver<Option<Stop>>,
    /// The network interfaces that the guest has to set up.
    pub interfaces: Vec<Interface>,
    /// Saves it.
    pub save: Box<dyn Save>,
}

/// The way to the agent, to be waited for: as long as the machine takes to boot, at least.
pub struct Connecting(Pin<Box<dyn Future<Output = Result<UnixStream, HypervisorError>>>>);

impl Connecting {
    /// What a future of a backend leads to. Dropped half way, it gives the machine up.
    pub(crate) fn new(connect: impl Future<Output = Result<UnixStream, HypervisorError>> + 'static) -> Self {
        Self(Box::pin(connect))
    }

    /// The pipe to the agent.
    ///
    /// # Errors
    /// Where the machine cannot be made to run, or has ended.
    pub async fn pipe(self) -> Result<UnixStream, HypervisorError> {
        self.0.await
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connecting")
    }
}

/// What the end of a machine's process tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Death {
    /// The guest wanted it.
    Guest(Stop),
    /// The process failed, in this way.
    Explained(&'static str),
    /// No more than its status says.
    Unknown,
}

/// Why a machine stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The guest powered off.
    PoweredOff,
    /// The guest reset: what a panicking kernel does.
    Reset,
    /// Anything else, in the hypervisor's word.
    Other(String),
}

/// Longest path in a Unix socket's address, NUL excluded.
const MAX_SOCKET_PATH: usize = 107;

/// Refuses a path that a Unix socket cannot have.
fn check_socket(path: &Path) -> Result<(), HypervisorError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(HypervisorError::SocketPath { path: path.to_owned() });
    }
    Ok(())
}

/// A machine for the tests of backends.
#[cfg(test)]
fn test_machine() -> MachineConfig {
    MachineConfig {
        name: "a,b".into(),
        id: "0a1b2c3d".into(),
        kernel: "/k".into(),
        initrd: "/i".into(),
        kernel_arguments: Some("extra=1".into()),
        link_key: LinkKey([0xab; 16]),
        cpus: 2,
        memory_mib: 512,
        disks: vec![Disk {
            serial: "base".into(),
            path: "/with,comma".into(),
            access: Access::ReadOnly,
            limits: DiskLimits::default(),
        }],
        network: None,
        options: MachineOptions::default(),
        metadata: None,
        runtime_dir: "/run".into(),
        save_dir: "/save".into(),
        saved: None,
    }
}
