//! `fcvm podman run`: from arguments to the container's status.

use std::process::ExitCode;

use anyhow::Context as _;
use fcvm_proto::{Container, Job};

use crate::{
    cli::podman::{Builder, Run},
    commands::environment,
    hypervisor::{self, Access, Disk, HypervisorError, Selection},
    image::{
        self, ImageError, Store, StoredImage,
        disk::{DiskBuilder, HostBuilder, WithFallback},
    },
    output::{Printer, USUAL_SIZE, terminal_size},
    setup::{self, Assets, Overrides, Rebuild},
    state::{NewVm, Registry, RuntimeDir},
    storage::DataDir,
    vm::{self, GuestBuilder, Input, Plan, Timings},
};

pub(super) fn run(arguments: Run, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let mut timings = Timings::start();
    if arguments.tty && arguments.interactive && !printer.stdin_is_terminal() {
        printer.warn("standard input is no terminal: the container's terminal takes it as it comes");
    }
    let container = container(&arguments)?;
    let selection = choose(&arguments, data, printer)?;
    let overrides = Overrides::from(arguments.sources.clone());
    let assets = if arguments.setup {
        setup::ensure(data, &overrides, Rebuild::Missing, printer)?
    } else {
        Assets::locate(data, &overrides)?
    };
    let registry = Registry::new(data, RuntimeDir::from_env());
    let mut claim = registry.claim(NewVm {
        name: arguments.name.clone(),
        hypervisor: selection.hypervisor.name().into(),
        image: arguments.image.to_string(),
        command: arguments.command.clone(),
        cpus: arguments.cpus,
        memory_mib: arguments.memory.0,
    })?;
    timings.mark("setup");
    let store = Store::open(data);
    let fallback = GuestBuilder { hypervisor: &*selection.hypervisor, assets: &assets, registry: &registry };
    let image = match arguments.disk_builder {
        Builder::Auto => resolve(&arguments, &store, printer, &WithFallback { first: HostBuilder, fallback }),
        Builder::Host => resolve(&arguments, &store, printer, &HostBuilder),
        Builder::Guest => resolve(&arguments, &store, printer, &fallback),
    }?;
    let _in_use = image.hold().with_context(|| format!("failed to lock image `{}`", arguments.image))?;
    claim.update(|state| state.image_digest = Some(image.digest))?;
    timings.mark("image");
    let hostname = match &arguments.hostname {
        Some(hostname) => hostname.0.clone(),
        None => claim.state().id.short().to_owned(),
    };
    let plan = plan(&arguments, assets, &image, container, hostname);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("failed to start the runtime")?;
    let ended = runtime.block_on(vm::run(&*selection.hypervisor, &plan, &mut claim, &mut timings));
    // Threads that wait for a reader or for input end with the process.
    runtime.shutdown_background();
    drop(claim);
    if arguments.timings {
        printer.note(&timings);
    }
    Ok(ExitCode::from(ended?))
}

/// The hypervisor, checked against what is asked of it; says once per boot of
/// this host why the choice is not the best.
fn choose(arguments: &Run, data: &DataDir, printer: &Printer) -> anyhow::Result<Selection> {
    let selection = hypervisor::select(arguments.hypervisor)?;
    let limit = selection.hypervisor.capabilities().max_cpus;
    if arguments.cpus > limit {
        let hypervisor = selection.hypervisor.name();
        return Err(HypervisorError::TooManyCpus { cpus: arguments.cpus, limit, hypervisor }.into());
    }
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
    })
}

fn plan(
    arguments: &Run,
    assets: Assets,
    image: &StoredImage,
    container: Container,
    hostname: String,
) -> Plan {
    Plan {
        assets,
        job: Job::Container(Box::new(Container { image: image.id.hex(), ..container })),
        disks: vec![Disk { serial: "image".into(), path: image.disk.clone(), access: Access::ReadOnly }],
        hostname,
        cpus: arguments.cpus,
        memory_mib: arguments.memory.0,
        kernel_arguments: arguments.kernel_args.clone(),
        input: if arguments.interactive { Input::Inherited } else { Input::Null },
    }
}
