//! `fcvm snapshot run`: VMs that go on from a snapshot.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
};

use anyhow::Context as _;
use fcvm_proto::{Container, ExecRequest, ExecTarget, Job, session::LinkKey};

use super::serve::SOCKET;
use crate::{
    cli::clone::{MemoryBackend, Run},
    commands::{
        block_on,
        podman::{detach, network, run as podman},
        stop::{self, Ending},
    },
    hypervisor::{
        self, Access, Choice, Disk, DiskLimits, HostMemory, Hypervisor, HypervisorError, MachineOptions,
        Pages, Saved, Wanted,
    },
    image::{Store as Images, StoredImage},
    network::{Behind, HostPort, Mode, Ports, Publish, Request, can_make_taps},
    output::{Printer, USUAL_SIZE, terminal_size},
    process::{Owner, SignalNumber},
    setup::Assets,
    snapshot::{
        Contents, Cpu, Host, MANIFEST, MEMORY, MachineRecord, Manifest, SCRATCH, STATE, Snapshot,
        SnapshotError, Store,
    },
    state::{Life, NewVm, ProcessType, Registry, RestartPolicy, RuntimeDir, Status, VmName, VmState},
    storage::DataDir,
    vm::{self, DetachKeys, Ends, Input, Origin, Output, Plan, SavedMachine, Starter, Timings},
    volume::{Map, VolumeError, VolumeStore, state_file},
};

/// Runs a clone to its end, as its owner.
pub(super) fn run(
    arguments: Run,
    starter: Starter,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let server = arguments.pid.map(|pid| server(pid, &registry)).transpose()?;
    let tag = match (&server, &arguments.snapshot) {
        (Some(server), _) => server.snapshot_name.as_deref().unwrap_or_default().parse()?,
        (None, Some(tag)) => tag.clone(),
        (None, None) => anyhow::bail!("neither --snapshot nor --pid was given"),
    };
    let snapshot = Store::open(data).get(&tag)?;
    of(&snapshot, server, arguments, starter, data, printer)
}

/// Runs a clone of this snapshot to its end, as its owner.
pub(in crate::commands) fn of(
    snapshot: &Snapshot,
    server: Option<VmState>,
    arguments: Run,
    starter: Starter,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let mut timings = Timings::start();
    let registry = Registry::new(data, RuntimeDir::from_env());
    let manifest = snapshot.manifest();
    check_streams(&arguments, manifest, printer)?;
    let hypervisor = engine(manifest, &arguments, data)?;
    let pages = match manifest.contents {
        Contents::Machine => pages(&arguments, server.as_ref(), manifest, &*hypervisor, &registry)?,
        Contents::Disk if arguments.mem_backend.is_some() => {
            let tag = snapshot.tag();
            anyhow::bail!("snapshot `{tag}` is of a disk alone: --mem-backend is for those that have memory")
        }
        Contents::Disk => None,
    };
    let host = Host {
        engine: hypervisor.engine(data)?,
        cpu: Cpu::of_this_host().context("failed to find out which processor this host has")?,
    };
    snapshot.check(&host)?;
    let assets = assets(snapshot, arguments.agent.as_deref(), &*hypervisor, data)?;
    let image = image(manifest, data, printer)?;
    let _lock =
        image.hold().with_context(|| format!("failed to lock image `{}`", manifest.image.reference))?;
    let maps = maps(snapshot, data)?;
    let network = request(&arguments, manifest, data)?;
    let sockets = hypervisor.capabilities().stream_network;
    let network = network.fitted(Behind { taps: can_make_taps(), sockets })?;
    let stays = !arguments.rm && arguments.exec.is_none();
    let mut claim = registry.claim(NewVm {
        name: arguments.name.clone(),
        hypervisor: hypervisor.name().into(),
        image: manifest.image.reference.clone(),
        command: manifest.container.command.clone(),
        cpus: manifest.machine.cpus,
        memory_mib: manifest.machine.memory_mib,
        life: match &starter {
            Starter::Parent(_) if stays => Life::Detached,
            Starter::Parent(_) => Life::DetachedOnce,
            Starter::User | Starter::Front(_) => Life::Foreground,
        },
        mounts: manifest.container.mounts.clone(),
        labels: manifest.container.labels.clone(),
        restart_policy: RestartPolicy::No,
        process_type: ProcessType::Clone,
        snapshot: Some(snapshot.tag().clone()),
        serve_pid: arguments.pid,
    })?;
    let routes = network::host_routes(&network)?;
    claim.allocate(&network, &[], &routes)?;
    claim.update(|state| state.image_digest = Some(image.digest))?;
    timings.mark("plan");
    let own_name = || claim.state().id.short().to_owned();
    let hostname = match (&arguments.hostname, &manifest.container.hostname) {
        (Some(given), _) => given.0.clone(),
        (None, saved) => saved.clone().unwrap_or_else(own_name),
    };
    let origin = origin(snapshot, pages, server.map(|server| server.owner))?;
    let plan = Plan {
        origin: Some(origin),
        maps,
        ..plan(&arguments, starter, snapshot, assets, &image, network, hostname)
    };
    let ended = block_on(vm::run(&*hypervisor, &plan, &mut claim, &mut timings))?;
    if claim.state().started.is_none() && plan.output == Output::LogOnly && ended.is_ok() {
        podman::tell_why(claim.directory(), printer);
    }
    crate::failpoint::reach("ended");
    podman::finish(claim, &ended)?;
    if arguments.timings {
        printer.note(&timings);
    }
    Ok(ExitCode::from(ended?))
}

/// A container has its streams since it was made.
fn check_streams(arguments: &Run, manifest: &Manifest, printer: &Printer) -> anyhow::Result<()> {
    let (container, tag) = (&manifest.container, &manifest.tag);
    for (option, wanted, has) in
        [("-i", arguments.interactive, container.interactive), ("-t", arguments.tty, container.terminal)]
    {
        anyhow::ensure!(
            has || !wanted,
            "the container in snapshot `{tag}` was started without `{option}`: a clone's is the same"
        );
    }
    if arguments.interactive && container.terminal && !printer.stdin_is_terminal() {
        printer.warn("standard input is no terminal: the container's terminal takes it as it comes");
    }
    Ok(())
}

/// Starts one clone in the background, or so many, whose names begin with the one that was given; prints their
/// ids. Each is started by these arguments and more. One that does not start is no other one's affair.
pub(in crate::commands) fn several(
    count: Option<u16>,
    name: Option<&VmName>,
    more: &[String],
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let Some(count) = count else {
        return Ok(match detach::start_one(data, more)? {
            Ok(id) => {
                printer.data(id)?;
                ExitCode::SUCCESS
            }
            Err(code) => code,
        });
    };
    let more = |number: u16| match name {
        Some(name) => [more, &[format!("--name={name}-{number}")]].concat(),
        None => more.to_vec(),
    };
    let started = thread::scope(|scope| {
        let threads: Vec<_> =
            (1..=count).map(|number| scope.spawn(move || detach::start_one(data, &more(number)))).collect();
        threads.into_iter().map(thread::ScopedJoinHandle::join).collect::<Vec<_>>()
    });
    let mut code = ExitCode::SUCCESS;
    let mut failed = None;
    for one in started {
        match one.unwrap_or_else(|_| Err(anyhow::anyhow!("the start of a VM failed"))) {
            Ok(Ok(id)) => printer.data(id)?,
            Ok(Err(status)) => code = status,
            // Those that run are told of first.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(code), Err)
}

/// Starts a clone, runs a command in it, and ends it; the command's status.
pub(super) fn once(arguments: &Run, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let timings = Timings::start();
    let id = match detach::start_one(data, &[])? {
        Ok(id) => id,
        Err(code) => return Ok(code),
    };
    let registry = Registry::new(data, RuntimeDir::from_env());
    let vm = registry.find(&id)?;
    let command = arguments.exec.clone().unwrap_or_default();
    let request = ExecRequest {
        id: vm::exec_id()?,
        target: ExecTarget::Container,
        command: vec!["sh".into(), "-c".into(), command],
        env: Vec::new(),
        workdir: None,
        user: None,
        privileged: false,
        terminal: None,
        interactive: false,
        detach: false,
    };
    let ends = Ends::inherited(&request)?;
    let status = block_on(vm::exec(&vm, &registry, &request, ends))?;
    if arguments.timings {
        printer.note(format_args!("command ended at {} ms", timings.total().as_millis()));
    }
    stop::end(&vm, Ending::Kill, &registry)?;
    Ok(ExitCode::from(status?))
}

/// The hypervisor that the snapshot is of.
fn engine(manifest: &Manifest, arguments: &Run, data: &DataDir) -> anyhow::Result<Box<dyn Hypervisor>> {
    let choice = match manifest.hypervisor.name.as_str() {
        "firecracker" => Choice::Firecracker,
        _ => Choice::Qemu,
    };
    // What kernel KVM can run has been seen: this one's.
    let wanted = Wanted { choice, firecracker: arguments.firecracker.as_deref(), own_kernel: true };
    Ok(hypervisor::select(&wanted, data)?.hypervisor)
}

/// What it runs with, and boots from where it has to.
fn assets(
    snapshot: &Snapshot,
    agent: Option<&Path>,
    hypervisor: &dyn Hypervisor,
    data: &DataDir,
) -> anyhow::Result<Assets> {
    let record = &snapshot.manifest().machine;
    let scratch = snapshot.path(SCRATCH);
    let (cpus, memory_mib) = (record.cpus, record.memory_mib);
    let request = hypervisor::Request { cpus, memory_mib, options: &machine(snapshot.manifest()) };
    request.check(hypervisor, &HostMemory::now())?;
    match snapshot.manifest().contents {
        Contents::Machine => Ok(Assets::again(record, data, scratch)?),
        Contents::Disk => Ok(Assets::anew(record, agent, data, scratch)?),
    }
}

/// What it has of the host beyond the usual.
fn machine(manifest: &Manifest) -> MachineOptions {
    let &MachineRecord { huge_pages, ref jail, .. } = &manifest.machine;
    let pages = if huge_pages { Pages::Huge } else { Pages::Usual };
    MachineOptions { pages, jail: jail.clone(), ..MachineOptions::default() }
}

/// The directories and files of the host that the VM had.
fn maps(snapshot: &Snapshot, data: &DataDir) -> Result<Vec<Map>, VolumeError> {
    let (manifest, store) = (snapshot.manifest(), VolumeStore::open(data));
    let state = |number| match manifest.contents {
        Contents::Machine => Some(snapshot.path(&state_file(number))),
        Contents::Disk => None,
    };
    manifest.volumes.iter().enumerate().map(|(number, volume)| volume.map(state(number), &store)).collect()
}

fn image(manifest: &Manifest, data: &DataDir, printer: &Printer) -> anyhow::Result<StoredImage> {
    let image = Images::open(data).get(&manifest.image.digest, printer);
    image
        .with_context(|| format!("the image of the snapshot, `{}`, cannot be used", manifest.image.reference))
}

/// The network of the snapshot, but for what was given; with its ports, at addresses of this VM's own.
fn request(arguments: &Run, manifest: &Manifest, data: &DataDir) -> anyhow::Result<Request> {
    let mut options = arguments.network.clone();
    if let Some(saved) = &manifest.network {
        options.network = options.network.or(Some(saved.mode));
        options.rootless_driver = options.rootless_driver.or(saved.driver);
        let networks = [options.network, Some(saved.mode)].map(|mode| mode != Some(Mode::None));
        anyhow::ensure!(
            manifest.contents == Contents::Disk || networks[0] == networks[1],
            "snapshot `{}` was made {} a network, and what goes on from it has the same devices",
            manifest.tag,
            if networks[1] { "with" } else { "without" }
        );
        // Its devices are as they are.
        options.mac_address = networks[0].then_some(saved.mac);
    }
    if options.publish.is_empty() && options.network != Some(Mode::None) {
        let one = |port: u16| Ports { first: port, last: port };
        options.publish.extend(manifest.ports.iter().map(|port| Publish {
            address: None,
            host: HostPort::Ports(one(port.host.port())),
            guest: one(port.guest),
            protocol: port.protocol,
        }));
    }
    Ok(network::request(&options, data)?)
}

fn plan(
    arguments: &Run,
    starter: Starter,
    snapshot: &Snapshot,
    assets: Assets,
    image: &StoredImage,
    network: Request,
    hostname: String,
) -> Plan {
    let manifest = snapshot.manifest();
    let background = matches!(starter, Starter::Parent(_));
    let container = Container {
        image: image.id.hex(),
        command: manifest.container.command.clone(),
        interactive: manifest.container.interactive,
        terminal: manifest.container.terminal.then(|| terminal_size().unwrap_or(USUAL_SIZE)),
        exists: true,
        program: manifest.container.program.clone(),
        ..Container::default()
    };
    Plan {
        assets,
        job: Job::Container(Box::new(container)),
        disks: vec![Disk {
            serial: "image".into(),
            path: image.disk.clone(),
            access: Access::ReadOnly,
            limits: DiskLimits::default(),
        }],
        hostname,
        cpus: manifest.machine.cpus,
        memory_mib: manifest.machine.memory_mib,
        machine: machine(manifest),
        network,
        scratch_limits: DiskLimits::default(),
        kernel_arguments: manifest.machine.kernel_arguments.clone(),
        input: if arguments.interactive { Input::Inherited } else { Input::Null },
        output: if background { Output::LogOnly } else { Output::Inherited },
        log_limit: arguments.log_max_size.0,
        restart_policy: RestartPolicy::No,
        timeout: None,
        health: manifest.container.health.clone(),
        maps: Vec::new(),
        stop_signal: SignalNumber::new(manifest.container.stop_signal).unwrap_or(SignalNumber::TERM),
        starter,
        detach_keys: DetachKeys::default(),
        kept: !arguments.rm,
        origin: None,
        tell_timings: arguments.timings,
        keep: None,
    }
}

/// What the VM is made of.
pub(in crate::commands) fn origin(
    snapshot: &Snapshot,
    pages: Option<PathBuf>,
    server: Option<Owner>,
) -> Result<Origin, SnapshotError> {
    let manifest = snapshot.manifest();
    let machine = match manifest.contents {
        Contents::Machine => {
            let link_key = LinkKey::from_hex(&manifest.link_key).ok_or_else(|| SnapshotError::Invalid {
                path: snapshot.path(MANIFEST),
                what: "its link key is none".into(),
            })?;
            let saved = Saved { state: snapshot.path(STATE), memory: snapshot.path(MEMORY), pages };
            Some(SavedMachine { saved, link_key })
        }
        Contents::Disk => None,
    };
    Ok(Origin { id: manifest.id.clone(), scratch: snapshot.path(SCRATCH), machine, server, program: None })
}

/// The process of that number, which serves a snapshot.
fn server(pid: i32, registry: &Registry) -> anyhow::Result<VmState> {
    let server = registry.servers()?.into_iter().find(|server| server.owner.pid == pid);
    let server = server.with_context(|| format!("process {pid} serves no snapshot"))?;
    anyhow::ensure!(server.status == Status::Running, "the server {pid} of `{}` ends", server.image);
    Ok(server)
}

/// The socket of the page server, where it fills the clone's memory.
fn pages(
    arguments: &Run,
    server: Option<&VmState>,
    manifest: &Manifest,
    hypervisor: &dyn Hypervisor,
    registry: &Registry,
) -> anyhow::Result<Option<PathBuf>> {
    let huge_pages = manifest.machine.huge_pages;
    if huge_pages && (server.is_none() || arguments.mem_backend == Some(MemoryBackend::File)) {
        let tag = &manifest.tag;
        anyhow::bail!(
            "snapshot `{tag}` is of a VM in huge pages, which only a page server fills: \
             give --pid what `fcvm snapshot serve {tag}` printed"
        )
    }
    let can = hypervisor.capabilities().page_server;
    let wanted = match (arguments.mem_backend, server) {
        (Some(MemoryBackend::Uffd), None) => {
            anyhow::bail!("--mem-backend uffd needs a server: give --pid what `fcvm snapshot serve` printed")
        }
        (Some(MemoryBackend::Uffd), Some(_)) if !can => {
            let (option, hypervisor) = ("--mem-backend uffd", hypervisor.name());
            return Err(HypervisorError::Lacks { option, hypervisor }.into());
        }
        // The file's pages are shared by all clones, and come without a switch to another process.
        (wanted, server) => server.filter(|_| wanted == Some(MemoryBackend::Uffd) || huge_pages),
    };
    Ok(wanted.map(|server| registry.runtime_dir(&server.id).join(SOCKET)))
}
