//! A run: disks, boots, output. See the states in the module above.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use fcvm_proto::{Job, Program, session::LinkKey, volume::MAX_LANES};
use tokio::{task::spawn_blocking, time::sleep};
use tracing::Instrument as _;

use super::{
    DetachKeys, Timings, VmError,
    attempt::{Attempt, Parts, Volumes},
    log::Log,
    metadata,
    outputs::Outputs,
    restarts::Restarts,
    signals::Signals,
};
use crate::{
    health::HealthCheck,
    hypervisor::{Access, Disk, DiskLimits, Hypervisor, MachineConfig, MachineOptions, Saved},
    network::{Network, NetworkError, Request, Setting},
    process::{Front, Owner, Parent, SignalNumber},
    setup::Assets,
    snapshot::{Moment, SnapshotTag, Store},
    state::{Claim, HealthStatus, RestartPolicy, Status},
    storage::cow,
    volume::{Map, Server},
};

/// Where a machine is saved, in the VM's directory.
const SAVE: &str = "save";

/// What to run.
#[derive(Debug)]
pub struct Plan {
    /// Kernel, initrd, base disk.
    pub assets: Assets,
    /// What the guest is for.
    pub job: Job,
    /// The disks that the job needs, in its order.
    pub disks: Vec<Disk>,
    /// Host name of guest and container.
    pub hostname: String,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What the machine has beyond the usual.
    pub machine: MachineOptions,
    /// How much of the scratch disk it may move.
    pub scratch_limits: DiskLimits,
    /// More kernel parameters.
    pub kernel_arguments: Option<String>,
    /// Where the container's input comes from.
    pub input: Input,
    /// Where the container's output goes, besides to its log.
    pub output: Output,
    /// How long the log may get, in bytes.
    pub log_limit: u64,
    /// What asks the container to end.
    pub stop_signal: SignalNumber,
    /// Who started this process.
    pub starter: Starter,
    /// By which keys in its input the user leaves a container with our terminal.
    pub detach_keys: DetachKeys,
    /// Whether record and log of a container that the user has left stay.
    pub kept: bool,
    /// Whether the container runs again once it has ended.
    pub restart_policy: RestartPolicy,
    /// How long the container may run.
    pub timeout: Option<Duration>,
    /// How to tell that the container is well.
    pub health: Option<HealthCheck>,
    /// Directories and files of the host that the guest has.
    pub maps: Vec<Map>,
    /// How it reaches others.
    pub network: Request,
    /// The snapshot that it is a clone of.
    pub origin: Option<Origin>,
    /// Whether who waits for the start sees where its time went.
    pub tell_timings: bool,
    /// Where the machine is to be saved, which then ends: it is for others to go on from.
    pub keep: Option<Keep>,
}

/// A machine that is to be saved.
#[derive(Debug)]
pub struct Keep {
    /// Where to.
    pub store: Store,
    /// What the snapshot is to be called.
    pub tag: SnapshotTag,
    /// When.
    pub at: Moment,
}

/// What a clone is made of.
#[derive(Debug)]
pub struct Origin {
    /// The snapshot's id.
    pub id: String,
    /// The scratch disk.
    pub scratch: PathBuf,
    /// What it goes on from instead of booting, where there is more than the disk: its job is under way there.
    pub machine: Option<SavedMachine>,
    /// Who serves its memory, or would have: the machine ends with that process.
    pub server: Option<Owner>,
    /// What the container is to run, where it waits for that; else it runs.
    pub program: Option<Program>,
}

/// A machine that was saved while it ran.
#[derive(Debug)]
pub struct SavedMachine {
    /// Its files.
    pub saved: Saved,
    /// Opens sessions with its agent.
    pub link_key: LinkKey,
}

/// Who started the process of a VM.
#[derive(Debug)]
pub enum Starter {
    /// A user, or a user's program.
    User,
    /// Another process, which waits for the container's start.
    Parent(Parent),
    /// Another process, which stays before this one at the terminal.
    Front(Front),
}

impl Starter {
    /// Who waits for the container's start.
    pub(super) fn parent(&self) -> Option<&Parent> {
        match self {
            Self::Parent(parent) => Some(parent),
            Self::User | Self::Front(_) => None,
        }
    }
}

/// Where the container's output goes, besides to its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// To our own standard output and standard error.
    Inherited,
    /// Nowhere.
    LogOnly,
}

impl Plan {
    /// Whether somebody's program runs in the guest.
    fn has_workload(&self) -> bool {
        matches!(self.job, Job::Container(_) | Job::Prepare(_))
    }

    /// What it goes on from, where it does not boot.
    pub(super) fn saved(&self) -> Option<&SavedMachine> {
        self.origin.as_ref()?.machine.as_ref()
    }

    /// How many lanes each volume has: as many as can be busy at once.
    pub(super) fn lanes(&self, cpus: u8) -> u16 {
        u16::from(cpus).clamp(1, MAX_LANES)
    }

    /// What the container runs, where it was made before that was known.
    pub(super) fn program(&self) -> Option<&Program> {
        let of_origin = self.origin.as_ref().and_then(|origin| origin.program.as_ref());
        let of_container = match &self.job {
            Job::Container(container) => container.program.as_ref(),
            _ => None,
        };
        of_origin.or(of_container)
    }

    /// Whether the container takes input.
    pub(super) fn takes_input(&self) -> bool {
        matches!(&self.job, Job::Container(container) if container.interactive)
    }

    /// Whether the container has a terminal.
    pub(super) fn has_terminal(&self) -> bool {
        matches!(&self.job, Job::Container(container) if container.terminal.is_some())
    }
}

/// Where the container's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// It has none.
    Null,
    /// Our own standard input.
    Inherited,
}

/// Runs a container in a VM of its own; the container's status.
///
/// A guest that never gets as far as the container is given a second chance,
/// with one CPU: an emulated kernel may trip over several.
///
/// # Errors
/// Where there is no status to return.
pub async fn run(
    hypervisor: &dyn Hypervisor,
    plan: &Plan,
    claim: &mut Claim,
    timings: &mut Timings,
) -> Result<u8, VmError> {
    let span = tracing::error_span!("vm", name = %claim.state().name);
    boots(hypervisor, plan, claim, timings).instrument(span).await
}

async fn boots(
    hypervisor: &dyn Hypervisor,
    plan: &Plan,
    claim: &mut Claim,
    timings: &mut Timings,
) -> Result<u8, VmError> {
    let host = |what| move |source| VmError::Host { what, source };
    let mut signals = Signals::listen().map_err(host("listen to signals"))?;
    crate::failpoint::reach("signals-heard");
    let log = Log::create(claim.directory(), plan.log_limit);
    crate::failpoint::reach("log-made");
    let mut restarts = Restarts::new(plan.restart_policy);
    let mut cpus = plan.cpus;
    let mut retried = false;
    loop {
        let boot = Boot { cpus, log: &log, restarts: &mut restarts };
        let ended = attempt(hypervisor, plan, boot, claim, timings, &mut signals).await;
        match ended {
            Err(error) if error.may_pass() && !retried && plan.saved().is_none() => {
                let error = first_line(&error);
                tracing::warn!(error, "the guest failed to boot; once again, with one CPU");
                timings.retry();
                (cpus, retried) = (1, true);
            }
            Err(error) if claim.state().started.is_some() => {
                match restarts.after_death(&error, claim.state().restarts) {
                    Some(pause) => revive(&error, pause, claim, &mut signals).await?,
                    None => return Err(error),
                }
                (cpus, retried) = (plan.cpus, false);
            }
            ended => return ended,
        }
    }
}

fn first_line(error: &VmError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// A machine died under a container that is to run on: the next boot begins with a new disk.
async fn revive(
    error: &VmError,
    pause: Duration,
    claim: &mut Claim,
    signals: &mut Signals,
) -> Result<(), VmError> {
    let text = first_line(error);
    tracing::warn!(error = text, "the VM died; it boots again");
    claim.update(|state| {
        state.hypervisor_process = None;
        state.status = Status::Starting;
        state.health_status = HealthStatus::Starting;
        state.error = Some(text);
    })?;
    tokio::select! {
        () = sleep(pause) => {}
        signal = ending(signals) => return Err(VmError::Interrupted { signal }),
    }
    claim.update(|state| {
        state.responding = true;
        state.error = None;
        state.restarts += 1;
    })?;
    Ok(())
}

/// What one boot has of those before it.
#[derive(Debug)]
pub(super) struct Boot<'a> {
    cpus: u8,
    log: &'a Log,
    pub(super) restarts: &'a mut Restarts,
}

/// One boot of the VM, to its end.
async fn attempt(
    hypervisor: &dyn Hypervisor,
    plan: &Plan,
    boot: Boot<'_>,
    claim: &mut Claim,
    timings: &mut Timings,
    signals: &mut Signals,
) -> Result<u8, VmError> {
    let scratch = claim.directory().join("scratch.raw");
    let template = plan.origin.as_ref().map_or(&plan.assets.scratch_template, |origin| &origin.scratch);
    let copying = copy(template.clone(), scratch.clone());
    let outputs = Outputs::new(claim.directory(), plan.output, boot.log)
        .map_err(|source| VmError::Spool { path: claim.directory().to_owned(), source })?;
    crate::failpoint::reach("spools-made");
    let mut disks = vec![
        Disk {
            serial: "base".into(),
            path: plan.assets.base.clone(),
            access: Access::ReadOnly,
            limits: DiskLimits::default(),
        },
        Disk {
            serial: "scratch".into(),
            path: scratch,
            access: Access::Ephemeral,
            limits: plan.scratch_limits,
        },
    ];
    disks.extend(plan.disks.iter().cloned());
    // Whatever happens meanwhile, the copy comes to its end: nothing is written to what is removed.
    let connecting = async {
        tokio::select! {
            network = network(plan, claim) => Ok(network?),
            signal = ending(signals) => Err(VmError::Interrupted { signal }),
        }
    };
    let (copied, network) = tokio::join!(copying, connecting);
    let copied = match (copied, &network) {
        (Err(error), Ok(Some(_))) => {
            if let Ok(Some(network)) = network {
                network.stop().await;
            }
            return Err(error);
        }
        (copied, _) => copied?,
    };
    let mut network = network?;
    crate::failpoint::reach("scratch-copied");
    if plan.saved().is_some() {
        timings.mark_at("disk", copied);
        timings.mark("namespace");
    }
    let launch = Launch { disks, outputs, network: network.as_mut() };
    let status = life(hypervisor, plan, boot, launch, claim, timings, signals).await;
    if let Some(network) = network {
        network.stop().await;
        crate::failpoint::reach("network-stopped");
    }
    status
}

/// The network that was allocated to the VM.
async fn network(plan: &Plan, claim: &mut Claim) -> Result<Option<Network>, NetworkError> {
    let (state, runtime_dir, reservations) = claim.network();
    let Some(record) = &state.network else { return Ok(None) };
    let program = Path::new("/proc/self/exe");
    let setting = Setting { request: &plan.network, record, ports: &state.ports, runtime_dir, program };
    Network::start(&setting, reservations).await
}

/// Makes the rest of it, while signals are heard.
async fn finish(network: Option<&mut Network>, signals: &mut Signals) -> Result<(), VmError> {
    let Some(network) = network else { return Ok(()) };
    tokio::select! {
        finished = network.finish() => Ok(finished?),
        signal = ending(signals) => Err(VmError::Interrupted { signal }),
    }
}

/// What is there before the launch.
struct Launch<'a> {
    disks: Vec<Disk>,
    outputs: Outputs,
    network: Option<&'a mut Network>,
}

/// From the launch to the end of all output.
async fn life(
    hypervisor: &dyn Hypervisor,
    plan: &Plan,
    boot: Boot<'_>,
    launch: Launch<'_>,
    claim: &mut Claim,
    timings: &mut Timings,
    signals: &mut Signals,
) -> Result<u8, VmError> {
    let Launch { disks, outputs, mut network } = launch;
    let goes_on = plan.saved().is_some();
    if !goes_on {
        finish(network.as_deref_mut(), signals).await?;
    }
    let link_key = match plan.saved() {
        Some(machine) => machine.link_key,
        None => LinkKey(random()?),
    };
    let save_dir = claim.directory().join(SAVE);
    match std::fs::create_dir(&save_dir) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            return Err(VmError::Scratch { path: save_dir, source });
        }
        _ => {}
    }
    let servers = plan.maps.iter().map(Server::start).collect::<Result<Vec<_>, _>>()?;
    crate::failpoint::reach("volume-servers-started");
    let machine = hypervisor.launch(&MachineConfig {
        name: claim.state().name.to_string(),
        id: claim.state().id.to_string(),
        kernel: plan.assets.kernel.clone(),
        initrd: plan.assets.initrd.clone(),
        kernel_arguments: plan.kernel_arguments.clone(),
        link_key,
        cpus: boot.cpus,
        memory_mib: plan.memory_mib,
        disks,
        network: network.as_ref().map(|network| network.nic().clone()),
        options: plan.machine.clone(),
        metadata: plan.has_workload().then(|| metadata::of(claim.state(), &plan.hostname)),
        runtime_dir: claim.runtime_dir().to_owned(),
        save_dir: save_dir.clone(),
        saved: plan.saved().map(|machine| machine.saved.clone()),
    })?;
    timings.launched();
    crate::failpoint::reach("launched");
    if goes_on {
        // A hypervisor takes its time until it can load anything, and runs nothing before somebody waits for it.
        finish(network.as_deref_mut(), signals).await?;
        timings.mark("network");
    }
    let volumes = Volumes::of(servers, plan.lanes(boot.cpus))?;
    let network = network.map(|network| &*network);
    let parts = Parts { volumes, network, cpus: boot.cpus, link_key, save_dir };
    let mut attempt = Attempt::new(hypervisor, plan, claim, timings, machine, boot.restarts, parts)?;
    let status = attempt.converse(signals, &outputs).await;
    // Nothing in the VM is to be kept: there is no need to wait for its shutdown.
    crate::failpoint::reach("conversed");
    attempt.kill().await;
    crate::failpoint::reach("hypervisor-killed");
    attempt.farewell(status.as_ref().ok().copied()).await;
    crate::failpoint::reach("farewell-said");
    timings.first_output(outputs.first_byte());
    outputs.end();
    let flushed = tokio::select! {
        flushed = outputs.flushed() => flushed,
        // The reader of our output does not read, and the user does not want to wait for it.
        signal = ending(signals) => Err(VmError::Interrupted { signal }),
    };
    timings.mark("teardown");
    crate::failpoint::reach("outputs-flushed");
    let status = status?;
    flushed?;
    Ok(status)
}

/// A VM's own disk, in place of that of a boot that failed; when it was there.
async fn copy(template: PathBuf, scratch: PathBuf) -> Result<Instant, VmError> {
    let path = scratch.clone();
    let copying = spawn_blocking(move || {
        remove_scratch(&scratch)?;
        cow::copy(&template, &scratch)?;
        Ok(Instant::now())
    });
    let copied = copying.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    copied.map_err(|source| VmError::Scratch { path, source })
}

fn remove_scratch(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], VmError> {
    let mut bytes = [0; N];
    crate::random::fill(&mut bytes).map_err(|source| VmError::Host { what: "get random bytes", source })?;
    Ok(bytes)
}

/// The next signal that asks the program to end.
async fn ending(signals: &mut Signals) -> i32 {
    loop {
        let signal = signals.next().await;
        if Signals::ends(signal) {
            return signal;
        }
    }
}
