//! QEMU's `microvm` machine, with KVM where it can be used, else emulated.
//!
//! The sockets for link and control are made and listened to by us and handed
//! over as descriptors, so that nothing waits for QEMU to create them.

mod arguments;
mod clock;
mod memory;
mod qmp;
mod save;
mod sys;

use std::{
    fs::File,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::Signal,
};
use tokio::sync::watch;

use self::{qmp::Qmp, save::Saver};

use super::{
    Capabilities, Connecting, Death, Hypervisor, HypervisorError, Machine, MachineConfig, Nic, NicBackend,
    VmmProcess,
};
use crate::{
    process::{die_with_parent, version},
    snapshot::Engine,
    storage::DataDir,
};

/// The socket of the link, in the machine's directory of sockets. It takes one connection at a time.
const LINK: &str = "link.sock";

/// Descriptors that QEMU finds open.
mod fds {
    pub(super) const QMP: i32 = 3;
    pub(super) const LINK: i32 = 4;
    pub(super) const CONSOLE: i32 = 5;
    /// The state of a machine that was saved.
    pub(super) const STATE: i32 = 6;
}

/// The QEMU backend.
#[derive(Debug, Clone)]
pub(super) struct Qemu {
    program: PathBuf,
    kvm: bool,
}

impl Qemu {
    /// QEMU for this host's architecture, by KVM or emulated.
    ///
    /// # Errors
    /// Where it is not installed.
    pub(super) fn find(kvm: bool) -> Result<Self, HypervisorError> {
        let name = format!("qemu-system-{}", std::env::consts::ARCH);
        match crate::setup::preflight::find_program(&name) {
            Some(program) => Ok(Self { program, kvm }),
            None => Err(HypervisorError::NotFound { program: name }),
        }
    }
}

impl Hypervisor for Qemu {
    fn name(&self) -> &'static str {
        "qemu"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            accelerated: self.kvm,
            max_cpus: 32,
            slowness: if self.kvm { 1 } else { 10 },
            // A balloon is blown up and asked by QMP only, the others are Firecracker's own.
            balloon: false,
            huge_pages: false,
            cpu_templates: false,
            jailer: false,
            stream_network: true,
            page_server: false,
        }
    }

    fn launch(&self, machine: &MachineConfig) -> Result<Machine, HypervisorError> {
        let start = |source| HypervisorError::Start { program: self.program.clone(), source };
        if let Some(NicBackend::Stream(path)) = machine.network.as_ref().map(|nic| &nic.backend) {
            super::check_socket(path)?;
        }
        let (qmp, qmp_end) = socket(&machine.runtime_dir.join("qmp.sock"))?;
        let (link, link_end) = socket(&machine.runtime_dir.join(LINK))?;
        crate::failpoint::reach("sockets-made");
        let (console, console_end) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| start(error.into()))?;
        let (messages, messages_end) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| start(error.into()))?;
        // A kernel that goes on knows it already, and to find out takes as long as all the rest here.
        let boots_emulated = machine.saved.is_none() && !self.kvm;
        let tsc_khz = if boots_emulated { clock::tsc_khz() } else { None };
        let mut command = Command::new(&self.program);
        command
            .args(arguments::arguments(machine, self.kvm, tsc_khz))
            .stdin(Stdio::null())
            .stdout(messages_end.try_clone().map_err(start)?)
            .stderr(messages_end);
        // A terminal's Ctrl-C is for us, not for it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut descriptors = vec![
            FdMapping { parent_fd: qmp_end, child_fd: fds::QMP },
            FdMapping { parent_fd: link_end, child_fd: fds::LINK },
            FdMapping { parent_fd: console_end, child_fd: fds::CONSOLE },
        ];
        if let Some(saved) = &machine.saved {
            let opened = File::open(&saved.state);
            let state =
                opened.map_err(|source| HypervisorError::Saved { path: saved.state.clone(), source })?;
            descriptors.push(FdMapping { parent_fd: state.into(), child_fd: fds::STATE });
        }
        die_with_parent(&mut command, Signal::KILL);
        if let Some(namespaces) = machine.network.as_ref().and_then(Nic::namespaces) {
            namespaces.join(&mut command);
        }
        // After the namespaces were joined, whose descriptors may have any number, also one of these.
        command.fd_mappings(descriptors).map_err(|_| start(std::io::ErrorKind::InvalidInput.into()))?;
        tracing::debug!(target: "qemu", ?command, "starting");
        let mut command = tokio::process::Command::from(command);
        let process = command.kill_on_drop(true).spawn().map_err(start)?;
        let (stop, stopped) = watch::channel(None);
        let qmp = Arc::new(Qmp::start(qmp, stop).map_err(start)?);
        let link = nonblocking(link).map_err(start)?;
        let restored = machine.saved.is_some().then(|| Arc::clone(&qmp));
        let link = Connecting::new(async move {
            if let Some(qmp) = restored {
                qmp.load(fds::STATE).await?;
                crate::failpoint::reach("state-loaded");
            }
            Ok(link)
        });
        let process = VmmProcess::new(process);
        let save = Saver::new(qmp, process.pid(), machine);
        Ok(Machine {
            process,
            save: Box::new(save),
            link,
            console,
            messages,
            stopped,
            interfaces: machine.network.iter().map(|nic| nic.interface.clone()).collect(),
        })
    }

    fn reconnect(&self, runtime_dir: &Path) -> Connecting {
        let path = runtime_dir.join(LINK);
        Connecting::new(async move {
            let connected = tokio::net::UnixStream::connect(&path).await;
            connected.map_err(|source| HypervisorError::Link { path, source })
        })
    }

    fn engine(&self, data: &DataDir) -> Result<Engine, HypervisorError> {
        let version = version::of(&self.program, "qemu", data, |said| {
            // `QEMU emulator version 7.2.22 (Debian …)`
            let version = said.lines().next()?.split_once("version ")?.1;
            version.split_whitespace().next().map(str::to_owned)
        })
        .map_err(|error| HypervisorError::version(&self.program, error))?;
        let accelerator = if self.kvm { "kvm" } else { "tcg" }.into();
        Ok(Engine { name: self.name().into(), version, accelerator })
    }

    fn death(&self, _: ExitStatus, _: &str) -> Death {
        // QMP has told more.
        Death::Unknown
    }
}

/// A listening socket for QEMU and our connection to it.
fn socket(path: &Path) -> Result<(UnixStream, OwnedFd), HypervisorError> {
    super::check_socket(path)?;
    let error = |source| HypervisorError::Socket { path: path.to_owned(), source };
    // That of a boot that failed: a hypervisor that was killed leaves it.
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(error(source)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    let stream = UnixStream::connect(path).map_err(error)?;
    Ok((stream, listener.as_fd().try_clone_to_owned().map_err(error)?))
}

fn nonblocking(stream: UnixStream) -> std::io::Result<tokio::net::UnixStream> {
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}
