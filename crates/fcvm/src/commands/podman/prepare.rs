//! `fcvm podman prepare`, and the same in the background.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::Context as _;
use fcvm_proto::Job;
use rustix::process::{nice, setsid};

use super::{
    network,
    run::{Asked, Ready, check_command, image, plan, ready, with_proxies},
    warm::Candidate,
};
use crate::{
    cli::podman::Run,
    commands, exit,
    hypervisor::Hypervisor,
    image::StoredImage,
    network::Request,
    output::Printer,
    snapshot::{Moment, SnapshotTag},
    state::{Life, NewVm, ProcessType, Registry, RestartPolicy, RuntimeDir},
    storage::{DataDir, Lock},
    vm::{self, Input, Keep, Output, Plan, Starter, Timings},
    warm::{Cache, WarmError, prepared},
};

/// How long a container may take to become healthy.
const LONGEST_RECOVERY: Duration = Duration::from_secs(600);
/// The least claim to the host's processors.
const NICE: i32 = 19;

/// Prepares a machine, and waits for it; prints its key.
pub(super) fn run(arguments: &Run, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let begin = |cache: &Cache, _: &SnapshotTag| {
        let lock = cache.begin_after(|| printer.note("waiting for another fcvm that prepares a VM ..."))?;
        Ok(Some(lock))
    };
    prepare(arguments, begin, data, printer)?;
    Ok(ExitCode::SUCCESS)
}

/// Prepares a machine where nobody else does so, with what the host has to spare. Nobody waits for it, or wants to
/// know what is in the way.
pub(super) fn by_the_way(arguments: &Run, data: &DataDir, printer: &Printer) -> ExitCode {
    if let Err(error) = setsid() {
        tracing::debug!(%error, "it ends with its starter's terminal");
    }
    if let Err(error) = nice(NICE) {
        tracing::debug!(%error, "it has as much of the processors as others");
    }
    crate::failpoint::reach("preparer");
    let begin = |cache: &Cache, key: &SnapshotTag| match cache.has_failed(key) {
        true => Ok(None),
        false => Ok(cache.begin()?),
    };
    match prepare(arguments, begin, data, printer) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::debug!(error = format!("{error:#}"), "no VM was prepared");
            ExitCode::from(exit::FAILED)
        }
    }
}

fn prepare(
    arguments: &Run,
    begin: impl FnOnce(&Cache, &SnapshotTag) -> anyhow::Result<Option<Lock>>,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<()> {
    let mut timings = Timings::start();
    let Ready { maps, container, machine, network, selection, assets, .. } = ready(arguments, data, printer)?;
    let hypervisor = &*selection.hypervisor;
    let image = image(arguments, &selection, &assets, data, printer)?;
    let _in_use = image.hold().with_context(|| format!("failed to lock image `{}`", arguments.image))?;
    let container = with_proxies(arguments, container, &image);
    let asked = Asked { container, machine, network };
    let plan = Plan { maps, ..plan(arguments, Starter::User, assets, &image, asked, String::new()) };
    let candidate = Candidate::of(arguments, &plan, &image, hypervisor, data)?
        .map_err(|reason| WarmError::Unfit { reason })?;
    if candidate.moment == Moment::Healthy {
        check_command(arguments, &image)?;
    }
    timings.mark("setup");
    let Candidate { key, host, moment, .. } = candidate;
    let cache = Cache::open(data);
    if cache.find(&key, &host).is_some() {
        return Ok(printer.data(&key)?);
    }
    let Some(_lock) = begin(&cache, &key)? else { return Ok(()) };
    crate::failpoint::reach("preparing");
    // Whoever had the lock may have made it.
    if cache.find(&key, &host).is_none() {
        let keep = Keep { store: cache.store().clone(), tag: key.clone(), at: moment };
        let saved = save(arguments, plan, keep, (hypervisor, &image), data, &mut timings);
        match &saved {
            Ok(()) => cache.has_succeeded(&key),
            Err(error) if exit::interruption(error).is_some() => {}
            Err(_) => cache.failed(&key),
        }
        saved?;
    }
    for (gone, bytes) in cache.prune(arguments.warm.limits())? {
        tracing::debug!(%gone, bytes, "a prepared VM goes");
    }
    if arguments.timings {
        printer.note(&timings);
    }
    Ok(printer.data(&key)?)
}

/// Boots the machine, and saves it.
fn save(
    arguments: &Run,
    plan: Plan,
    keep: Keep,
    (hypervisor, image): (&dyn Hypervisor, &StoredImage),
    data: &DataDir,
    timings: &mut Timings,
) -> anyhow::Result<()> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let mut claim = registry.claim(NewVm {
        name: None,
        hypervisor: hypervisor.name().into(),
        image: arguments.image.to_string(),
        command: Vec::new(),
        cpus: arguments.cpus,
        memory_mib: arguments.memory.0,
        life: Life::Foreground,
        labels: BTreeMap::new(),
        restart_policy: RestartPolicy::No,
        process_type: ProcessType::Prepare,
        snapshot: None,
        serve_pid: None,
        mounts: Vec::new(),
    })?;
    // Its ports are its runs' own.
    let request = Request { publish: Vec::new(), publish_all: false, ..plan.network };
    claim.allocate(&request, &[], &network::host_routes(&request)?)?;
    claim.update(|state| state.image_digest = Some(image.digest))?;
    let own = || claim.state().id.short().to_owned();
    let hostname = arguments.hostname.as_ref().map_or_else(own, |name| name.0.clone());
    let (job, health, timeout) = match (keep.at, plan.job) {
        (Moment::Created, Job::Container(container)) => {
            (Job::Prepare(Box::new(prepared(&container))), None, None)
        }
        (_, job) => (job, plan.health, Some(LONGEST_RECOVERY)),
    };
    let (store, tag) = (keep.store.clone(), keep.tag.clone());
    let plan = Plan {
        job,
        health,
        timeout,
        hostname,
        network: request,
        input: Input::Null,
        output: Output::LogOnly,
        restart_policy: RestartPolicy::No,
        kept: false,
        keep: Some(keep),
        ..plan
    };
    let code = commands::block_on(vm::run(hypervisor, &plan, &mut claim, timings))??;
    crate::failpoint::reach("prepared");
    match store.get(&tag) {
        Ok(_) => Ok(()),
        Err(_) => Err(WarmError::Ended { code }.into()),
    }
}
