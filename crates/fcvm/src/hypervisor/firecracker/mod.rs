//! Firecracker: the main engine, by KVM.
//!
//! ```text
//!  find -> version -> start the process -> API socket is there -> configure -> InstanceStart
//!                                                             -> the agent knocks -> vsock pipe
//! ```
//! [`launch`](Hypervisor::launch) starts the process; all that waits for it is in
//! [`Machine::link`], beside which the caller hears signals and the process's end. Whatever fails
//! half way, killing the process undoes all of it: its sockets lie in the machine's directory, which
//! goes with the machine.

pub mod api;
mod configuration;
mod guest_memory;
mod jailer;
mod kernel;
mod metrics;
mod places;
mod process;
mod ready;
mod save;
mod version;
mod vsock;

use std::{
    path::{Path, PathBuf},
    process::ExitStatus,
};

use fcvm_proto::transport::{VSOCK_PORT, VSOCK_STREAMS_PORT};
use tokio::{net::UnixStream, sync::watch};

pub(super) use guest_memory::guest_memory;
pub(super) use metrics::traffic;
pub use version::{LEAST, Version};

use self::{
    api::{Client, Metrics},
    configuration::Configuration,
    jailer::Jailer,
    metrics::Collector,
    save::Saver,
    vsock::Doorbell,
};
use super::{
    Capabilities, Connecting, Death, Hypervisor, HypervisorError, Machine, MachineConfig, MachineOptions,
    NicBackend, Virtualization, check_socket, virtualization,
};
use crate::{setup::preflight::find_program, snapshot::Engine, storage::DataDir};

/// The program's name.
pub const PROGRAM: &str = "firecracker";
/// As many as Firecracker gives a machine (`MAX_SUPPORTED_VCPUS`).
const MAX_CPUS: u8 = 32;

/// The Firecracker backend.
#[derive(Debug, Clone)]
pub struct Firecracker {
    program: PathBuf,
    version: Version,
    host: Virtualization,
}

/// Finds Firecracker: the program given, else that in `PATH`, else what `fcvm setup` downloaded.
///
/// # Errors
/// Where there is none, or one that will not do.
pub fn find(given: Option<&Path>, data: &DataDir) -> Result<Firecracker, HypervisorError> {
    // An empty variable is none.
    let program = match given.filter(|given| !given.as_os_str().is_empty()) {
        Some(given) => std::fs::canonicalize(given)
            .map_err(|source| HypervisorError::Start { program: given.to_owned(), source })?,
        None => find_program(PROGRAM)
            .or_else(|| Some(data.firecracker().join(PROGRAM)).filter(|program| program.exists()))
            .ok_or(HypervisorError::NoFirecracker)?,
    };
    let version = version::of(&program, data)?;
    if version < LEAST {
        return Err(HypervisorError::OldVersion { program, found: version, least: LEAST });
    }
    Ok(Firecracker { program, version, host: virtualization() })
}

impl Firecracker {
    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// How a guest's CPU time relates to the host's.
    fn slowness(&self) -> u16 {
        if self.host == Virtualization::Kvm { 1 } else { 10 }
    }

    /// Which one it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }
}

impl Hypervisor for Firecracker {
    fn name(&self) -> &'static str {
        PROGRAM
    }

    fn capabilities(&self) -> Capabilities {
        let accelerated = self.host == Virtualization::Kvm;
        Capabilities {
            accelerated,
            max_cpus: MAX_CPUS,
            slowness: self.slowness().into(),
            balloon: true,
            huge_pages: true,
            cpu_templates: true,
            jailer: true,
            stream_network: false,
            page_server: true,
        }
    }

    fn ready(&self, options: &MachineOptions) -> Result<(), HypervisorError> {
        let Some(jail) = &options.jail else { return Ok(()) };
        Jailer::find(&self.program)?;
        jailer::check(jail)
    }

    fn launch(&self, machine: &MachineConfig) -> Result<Machine, HypervisorError> {
        if let Some(NicBackend::Stream(_)) = machine.network.as_ref().map(|nic| &nic.backend) {
            return Err(HypervisorError::NeedsTap);
        }
        places::make(&machine.runtime_dir)
            .map_err(|source| HypervisorError::Start { program: self.program.clone(), source })?;
        let directory = machine.runtime_dir.join(places::RUN);
        let (api, device) = (directory.join(process::API_SOCKET), directory.join(vsock::SOCKET));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| HypervisorError::Socket { path, source }
        };
        // Sockets of a machine before: Firecracker removes neither, and refuses both.
        for socket in [&api, &device] {
            check_socket(socket)?;
            vsock::forget(socket).map_err(failed(socket))?;
        }
        let parameters = kernel::parameters(machine)?;
        let doorbell = Doorbell::hang(&device).map_err(failed(&device))?;
        let collector = Collector::new(&machine.runtime_dir).map_err(failed(&directory))?;
        crate::failpoint::reach("sockets-made");
        let ready = ready::Socket::expect(&api).map_err(failed(&api))?;
        let process::Process { process, console, messages, places } = process::start(&self.program, machine)?;
        let configuration = Configuration::of(machine, parameters, &places, self.slowness());
        let save = Box::new(Saver::new(&api, process.pid(), machine, places.save.clone()));
        let boots = machine.saved.is_none();
        let interfaces = configuration::interface(machine, &places).into_iter().collect();
        let counters = places.run.join(metrics::FIFO);
        let link = Connecting::new(async move {
            ready.appeared().await.map_err(failed(&api))?;
            crate::failpoint::reach("api-ready");
            let client = Client::connect(&api).await?;
            client.put_metrics(&Metrics { metrics_path: counters }).await?;
            collector.start().map_err(failed(&api))?;
            configuration.start(&client).await?;
            crate::failpoint::reach("instance-started");
            connect(boots.then_some(doorbell), device).await
        });
        let (_, stopped) = watch::channel(None);
        Ok(Machine { process, link, console, messages, stopped, interfaces, save })
    }

    fn reconnect(&self, runtime_dir: &Path) -> Connecting {
        let device = runtime_dir.join(places::RUN).join(vsock::SOCKET);
        Connecting::new(async move {
            vsock::connect(&device, VSOCK_PORT)
                .await
                .map_err(|source| HypervisorError::Link { path: device, source })
        })
    }

    fn stream(&self, runtime_dir: &Path) -> Option<Connecting> {
        let device = runtime_dir.join(places::RUN).join(vsock::SOCKET);
        Some(Connecting::new(async move {
            let stream = vsock::connect(&device, VSOCK_STREAMS_PORT).await;
            stream.map_err(|source| HypervisorError::Link { path: device, source })
        }))
    }

    fn engine(&self, _: &DataDir) -> Result<Engine, HypervisorError> {
        Ok(Engine { name: PROGRAM.into(), version: self.version.to_string(), accelerator: "kvm".into() })
    }

    fn death(&self, status: ExitStatus, messages: &str) -> Death {
        process::death(status, messages)
    }
}

/// Waits for the agent, which knocks when it boots, and connects to it.
async fn connect(doorbell: Option<Doorbell>, device: PathBuf) -> Result<UnixStream, HypervisorError> {
    let connected = async {
        if let Some(doorbell) = doorbell {
            doorbell.rung().await?;
            tracing::debug!(target: "firecracker", "the agent knocks");
        }
        vsock::connect(&device, VSOCK_PORT).await
    };
    connected.await.map_err(|source| HypervisorError::Link { path: device.clone(), source })
}
