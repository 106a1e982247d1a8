//! `fcvm podman run`: from arguments to the container's status.

use std::{error::Error as _, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use fcvm_proto::{Container, Job};

use super::{
    id_files::IdFiles,
    machine, network,
    warm::{self, Warm},
};
use crate::{
    cli::{
        health::Health,
        podman::{Builder, Run},
    },
    commands::{self, environment},
    health::{HealthCheck, Probe},
    hypervisor::{self, Access, Disk, HostMemory, MachineOptions, Request, Selection, Wanted},
    image::{
        self, ImageError, Store, StoredImage,
        disk::{DiskBuilder, HostBuilder, WithFallback},
    },
    network::{Behind, Mode, can_make_taps},
    output::{Printer, USUAL_SIZE, sanitize, terminal_size},
    process::SignalNumber,
    setup::{self, Assets, Overrides, Rebuild},
    state::{Claim, Life, MountRecord, NewVm, Registry, RuntimeDir, StateError},
    storage::DataDir,
    vm::{
        self, GuestBuilder, Input, Output, Plan, Starter, Timings, VmError,
        log::{Show, Source},
    },
    volume::{Map, Mounts, VolumeError, VolumeStore},
};

/// How much is told of why a container did not start, in bytes.
const MAX_WHY: usize = 16 << 10;

pub(super) fn run(
    arguments: Run,
    starter: Starter,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let mut timings = Timings::start();
    if arguments.tty && arguments.interactive && !printer.stdin_is_terminal() {
        printer.warn("standard input is no terminal: the container's terminal takes it as it comes");
    }
    IdFiles::check(&arguments)?;
    let Ready { maps, records, container, machine, network, selection, assets } =
        ready(&arguments, data, printer)?;
    let registry = Registry::new(data, RuntimeDir::from_env());
    crate::failpoint::reach("assets-located");
    let mut claim = registry.claim(NewVm {
        name: arguments.name.clone(),
        hypervisor: selection.hypervisor.name().into(),
        image: arguments.image.to_string(),
        command: arguments.command.clone(),
        cpus: arguments.cpus,
        memory_mib: arguments.memory.0,
        life: match (&starter, arguments.rm) {
            (Starter::User | Starter::Front(_), _) => Life::Foreground,
            (Starter::Parent(_), false) => Life::Detached,
            (Starter::Parent(_), true) => Life::DetachedOnce,
        },
        labels: container.labels.iter().cloned().collect(),
        restart_policy: arguments.restart,
        process_type: crate::state::ProcessType::Vm,
        snapshot: None,
        serve_pid: None,
        mounts: records,
    })?;
    let routes = network::host_routes(&network)?;
    claim.allocate(&network, &[], &routes)?;
    let id_files = IdFiles::write(&arguments, claim.state().id.as_str())?;
    crate::failpoint::reach("id-files-written");
    timings.mark("setup");
    let image = image(&arguments, &selection, &assets, data, printer)?;
    check_command(&arguments, &image)?;
    let _in_use = image.hold().with_context(|| format!("failed to lock image `{}`", arguments.image))?;
    crate::failpoint::reach("image-held");
    claim.update(|state| state.image_digest = Some(image.digest))?;
    if network.publish_all {
        claim.allocate(&network, &network::exposed(&image), &routes)?;
    }
    timings.mark("image");
    crate::failpoint::reach("image-recorded");
    let hostname = match &arguments.hostname {
        Some(hostname) => hostname.0.clone(),
        None => claim.state().id.short().to_owned(),
    };
    let container = with_proxies(&arguments, container, &image);
    let asked = Asked { container, machine, network };
    let mut plan = Plan { maps, ..plan(&arguments, starter, assets, &image, asked, hostname) };
    let hypervisor = &*selection.hypervisor;
    let mut warm = Warm::find(&arguments, &plan, &image, hypervisor, data);
    let mut ended = None;
    if let Some(entry) = warm.entry.take() {
        plan.origin = Some(warm.origin(&entry)?);
        claim.update(|state| warm.tell(&entry, &plan.network, state))?;
        let result = commands::block_on(vm::run(hypervisor, &plan, &mut claim, &mut timings))?;
        match result {
            Err(error) if Warm::may_boot(&error, claim.state()) => {
                plan.origin = None;
                claim.update(|state| state.warm_start = None)?;
                timings.retry();
                warm.judge(entry, &error);
            }
            result => {
                warm.entry = Some(entry);
                ended = Some(result);
            }
        }
    }
    let ended = match ended {
        Some(ended) => ended,
        None => commands::block_on(vm::run(hypervisor, &plan, &mut claim, &mut timings))?,
    };
    if claim.state().started.is_some() {
        id_files.keep();
    } else if plan.output == Output::LogOnly && ended.is_ok() {
        tell_why(claim.directory(), printer);
    }
    crate::failpoint::reach("ended");
    finish(claim, &ended)?;
    crate::failpoint::reach("finished");
    if arguments.timings {
        printer.note(&timings);
    }
    let code = ended?;
    // Of one in the background that is its parent's to begin: its own end may never come.
    if warm.is_missing() && plan.output == Output::Inherited {
        warm::prepare_later(&arguments);
    }
    Ok(ExitCode::from(code))
}

/// What is known before there is a VM.
pub(super) struct Ready {
    pub(super) maps: Vec<Map>,
    records: Vec<MountRecord>,
    pub(super) container: Container,
    pub(super) machine: MachineOptions,
    pub(super) network: crate::network::Request,
    pub(super) selection: Selection,
    pub(super) assets: Assets,
}

/// Looks at all that was asked for, and at what the host has for it.
pub(super) fn ready(arguments: &Run, data: &DataDir, printer: &Printer) -> anyhow::Result<Ready> {
    let Mounts { maps, records, volumes, mounts, filled } = mounts(arguments, data)?;
    let container = Container { volumes, mounts, filled_volumes: filled, ..container(arguments)? };
    let machine = machine::options(&arguments.machine)?;
    let network = network::request(&arguments.network, data)?;
    let selection = choose(arguments, &machine, data, printer)?;
    let sockets = selection.hypervisor.capabilities().stream_network;
    let network = network.fitted(Behind { taps: can_make_taps(), sockets })?;
    let overrides = Overrides::from(arguments.sources.clone());
    let assets = if arguments.setup {
        setup::ensure(data, &overrides, Rebuild::Missing, printer)?
    } else {
        Assets::locate(data, &overrides)?
    };
    Ok(Ready { maps, records, container, machine, network, selection, assets })
}

/// The image, with its disk.
pub(super) fn image(
    arguments: &Run,
    selection: &Selection,
    assets: &Assets,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<StoredImage> {
    let store = Store::open(data);
    let registry = &Registry::new(data, RuntimeDir::from_env());
    let fallback = GuestBuilder { hypervisor: &*selection.hypervisor, assets, registry };
    let image = match arguments.disk_builder {
        Builder::Auto => resolve(arguments, &store, printer, &WithFallback { first: HostBuilder, fallback }),
        Builder::Host => resolve(arguments, &store, printer, &HostBuilder),
        Builder::Guest => resolve(arguments, &store, printer, &fallback),
    }?;
    crate::failpoint::reach("image-resolved");
    Ok(image)
}

/// Refuses to run nothing.
pub(super) fn check_command(arguments: &Run, image: &StoredImage) -> anyhow::Result<()> {
    anyhow::ensure!(
        has_command(arguments, image),
        "no command or entrypoint provided, and no CMD or ENTRYPOINT from image `{}`",
        arguments.image
    );
    Ok(())
}

/// Records how it ended.
pub(in crate::commands) fn finish(claim: Claim, ended: &Result<u8, VmError>) -> Result<(), StateError> {
    match ended {
        Ok(code) => claim.finish(Some(*code), None),
        Err(VmError::Interrupted { signal }) => claim.finish(u8::try_from(128 + signal).ok(), None),
        Err(error) => {
            let causes = std::iter::successors(error.source(), |&cause| cause.source());
            let text = causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"));
            claim.finish(None, Some(text))
        }
    }
}

/// Podman's own words, where a container did not start and nobody sees its output.
pub(in crate::commands) fn tell_why(directory: &Path, printer: &Printer) {
    let mut said = Vec::new();
    let mut write = |source, bytes: &[u8]| {
        if source == Source::Stderr {
            said.extend_from_slice(bytes);
        }
        Ok(said.len() < MAX_WHY)
    };
    if let Err(error) = Show::default().show(directory, None, &mut write) {
        tracing::warn!(%error, "why the container did not start is not known");
    }
    printer.note(sanitize(String::from_utf8_lossy(&said).trim_end()));
}

/// The hypervisor, checked against what is asked of it; says once per boot of
/// this host why the choice is not the best.
fn choose(
    arguments: &Run,
    options: &MachineOptions,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<Selection> {
    let wanted = Wanted {
        choice: arguments.hypervisor,
        firecracker: arguments.firecracker.as_deref(),
        own_kernel: arguments.sources.kernel.is_some(),
    };
    let selection = hypervisor::select(&wanted, data)?;
    let request = Request { cpus: arguments.cpus, memory_mib: arguments.memory.0, options };
    request.check(&*selection.hypervisor, &HostMemory::now())?;
    if let Some(warning) = &selection.warning
        && data.first_time_since_boot("hypervisor-warning")
    {
        printer.warn(warning);
    }
    Ok(selection)
}

fn resolve(
    arguments: &Run,
    store: &Store,
    printer: &Printer,
    builder: &dyn DiskBuilder,
) -> Result<StoredImage, ImageError> {
    image::resolve(&arguments.image, arguments.pull, store, &arguments.access.to_access(), printer, builder)
}

/// Whether there is anything to run. An entry point that is given takes the image's command away.
fn has_command(arguments: &Run, image: &StoredImage) -> bool {
    let of_image = &image.config.config;
    let entrypoint = match arguments.entrypoint.as_deref() {
        None => !of_image.entrypoint.is_empty() || !of_image.cmd.is_empty(),
        Some(given) => !matches!(given.trim(), "" | "[]"),
    };
    entrypoint || !arguments.command.is_empty()
}

fn mounts(arguments: &Run, data: &DataDir) -> Result<Mounts, VolumeError> {
    let volumes = arguments.volume.iter().map(|spec| &spec.0);
    let all = volumes.chain(arguments.mount.iter().map(|spec| &spec.0));
    Mounts::find(all, &VolumeStore::open(data))
}

fn container(arguments: &Run) -> anyhow::Result<Container> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.clone(), String::new()),
    };
    Ok(Container {
        image: String::new(),
        command: arguments.command.clone(),
        entrypoint: arguments.entrypoint.clone(),
        env: environment::collect(&arguments.env_file, &arguments.env, &environment::host())?,
        workdir: arguments.workdir.clone(),
        user: arguments.user.clone(),
        labels: arguments.label.iter().map(pair).collect(),
        privileged: arguments.privileged,
        read_only: arguments.read_only,
        tmpfs: arguments.tmpfs.clone(),
        cap_add: arguments.cap_add.clone(),
        cap_drop: arguments.cap_drop.clone(),
        ulimits: arguments.ulimit.clone(),
        interactive: arguments.interactive,
        terminal: arguments.tty.then(|| terminal_size().unwrap_or(USUAL_SIZE)),
        ..Container::default()
    })
}

/// What was asked for, beside what is taken as it was given.
pub(super) struct Asked {
    pub(super) container: Container,
    pub(super) machine: MachineOptions,
    pub(super) network: crate::network::Request,
}

/// The host's proxies, which mean nothing without a network.
pub(super) fn with_proxies(arguments: &Run, mut container: Container, image: &StoredImage) -> Container {
    if arguments.network.http_proxy && arguments.network.network != Some(Mode::None) {
        let of_image = &image.config.config.env;
        let proxies = environment::proxies(&environment::host(), &container.env, of_image);
        container.env.extend(proxies);
    }
    container
}

pub(super) fn plan(
    arguments: &Run,
    starter: Starter,
    assets: Assets,
    image: &StoredImage,
    asked: Asked,
    hostname: String,
) -> Plan {
    let Asked { container, machine, network } = asked;
    let background = matches!(starter, Starter::Parent(_));
    let limits = machine::disk_limits(&arguments.machine);
    Plan {
        assets,
        job: Job::Container(Box::new(Container { image: image.id.hex(), ..container })),
        disks: vec![Disk {
            serial: "image".into(),
            path: image.disk.clone(),
            access: Access::ReadOnly,
            limits,
        }],
        hostname,
        cpus: arguments.cpus,
        memory_mib: arguments.memory.0,
        machine,
        network,
        scratch_limits: limits,
        kernel_arguments: (!arguments.kernel_args.is_empty()).then(|| arguments.kernel_args.join(" ")),
        // In the background nobody has input for it: it has one that does not end.
        input: if arguments.interactive && !background { Input::Inherited } else { Input::Null },
        output: if background { Output::LogOnly } else { Output::Inherited },
        log_limit: arguments.log_max_size.0,
        // An image that names none that there is gets the usual one, as with Podman.
        restart_policy: arguments.restart,
        timeout: arguments
            .timeout
            .filter(|seconds| *seconds > 0)
            .map(|seconds| Duration::from_secs(seconds.into())),
        health: health(&arguments.health, image),
        maps: Vec::new(),
        stop_signal: image.config.config.stop_signal.parse().unwrap_or(SignalNumber::TERM),
        starter,
        detach_keys: arguments.detach_keys.clone(),
        kept: !arguments.rm,
        origin: None,
        tell_timings: arguments.timings,
        keep: None,
    }
}

/// The check that was asked for, else the image's.
fn health(arguments: &Health, image: &StoredImage) -> Option<HealthCheck> {
    if arguments.no_healthcheck {
        return None;
    }
    let mut check = match (&arguments.health_check, &arguments.health_cmd) {
        (Some(request), _) => {
            let mut request = request.clone();
            if let Some(statuses) = &arguments.health_check_status {
                request.expected = statuses.0.clone();
            }
            HealthCheck::new(Probe::Http(request))
        }
        (None, Some(text)) => HealthCheck::new(probe(text)?),
        (None, None) => HealthCheck::of_image(image.config.config.healthcheck.as_ref()?)?,
    };
    check.interval = arguments.health_interval.map_or(check.interval, |time| time.0);
    check.timeout = arguments.health_timeout.map_or(check.timeout, |time| time.0);
    check.start_period = arguments.health_start_period.map_or(check.start_period, |time| time.0);
    check.retries = arguments.health_retries.unwrap_or(check.retries);
    Some(check)
}

/// As Podman reads `--health-cmd`: `none`, `CMD` and words, a JSON array as images have it or of words,
/// or a text for the shell.
fn probe(text: &str) -> Option<Probe> {
    if text == "none" {
        return None;
    }
    if let Some(words) = text.strip_prefix("CMD ") {
        return Some(Probe::Command(words.split_whitespace().map(String::from).collect()));
    }
    let text = text.strip_prefix("CMD-SHELL ").unwrap_or(text);
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(words) if matches!(words.first().map(String::as_str), Some("CMD" | "CMD-SHELL" | "NONE")) => {
            Probe::parse(&words)
        }
        Ok(words) if words.len() > 1 => Some(Probe::Command(words)),
        Ok(words) if words.len() == 1 => Some(Probe::shell(&words[0])),
        _ => Some(Probe::shell(text)),
    }
}
