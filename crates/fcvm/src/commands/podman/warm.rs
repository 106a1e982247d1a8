//! A run and what is prepared for it.

use std::{
    env,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use anyhow::Context as _;
use fcvm_proto::{Container, FailureKind, Job, Program};

use super::PREPARER;
use crate::{
    cli::podman::Run,
    commands::snapshot::run::origin,
    hypervisor::Hypervisor,
    image::StoredImage,
    network::{Mode, Request},
    process::keep_descriptors,
    snapshot::{Cpu, Host, Moment, Snapshot, SnapshotTag},
    state::VmState,
    storage::DataDir,
    vm::{Origin, Plan, VmError},
    warm::{Cache, DiskStamp, Fitness, NetworkShape, Shape, prepared, program, unfit},
};

/// What a run can go on from.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) key: SnapshotTag,
    pub(super) host: Host,
    pub(super) moment: Moment,
}

impl Candidate {
    /// That of a run; why there is none, where it has to boot.
    ///
    /// # Errors
    /// Where what it depends on is not known.
    pub(super) fn of(
        arguments: &Run,
        plan: &Plan,
        image: &StoredImage,
        hypervisor: &dyn Hypervisor,
        data: &DataDir,
    ) -> anyhow::Result<Result<Self, &'static str>> {
        let moment = arguments.warm.cache_at;
        let Job::Container(container) = &plan.job else { return Ok(Err("it runs no container")) };
        let fitness = Fitness {
            moment,
            machine: &plan.machine,
            limits: plan.scratch_limits,
            maps: &plan.maps,
            container,
            restart: plan.restart_policy,
        };
        if let Some(reason) = unfit(&fitness) {
            return Ok(Err(reason));
        }
        let host = Host {
            engine: hypervisor.engine(data)?,
            cpu: Cpu::of_this_host().context("failed to find out which processor this host has")?,
        };
        let stamp = |path| {
            DiskStamp::of(path).with_context(|| format!("failed to look at `{}`", image.disk.display()))
        };
        let runs = moment == Moment::Healthy;
        let shape = Shape {
            moment,
            engine: host.engine.clone(),
            cpu: host.cpu.clone(),
            assets: Shape::assets(&plan.assets),
            scratch: plan
                .assets
                .scratch_template
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            image: image.digest,
            disk: stamp(&image.disk)?,
            cpus: plan.cpus,
            memory_mib: plan.memory_mib,
            kernel_arguments: plan.kernel_arguments.clone(),
            network: NetworkShape::of(&plan.network),
            container: if runs { Container::clone(container) } else { prepared(container) },
            hostname: arguments.hostname.as_ref().filter(|_| runs).map(|name| name.0.clone()),
            health: plan.health.clone().filter(|_| runs),
        };
        Ok(Ok(Self { key: shape.key(), host, moment }))
    }
}

/// A run's way to start warm, as far as there is one.
#[derive(Debug)]
pub(super) struct Warm {
    cache: Cache,
    candidate: Option<Candidate>,
    /// What its container is to run, where that is not in the machine.
    program: Option<Program>,
    /// What it goes on from: nobody removes it meanwhile.
    pub(super) entry: Option<Snapshot>,
}

impl Warm {
    /// Looks for what was prepared. A run that cannot start so boots, and is as good.
    pub(super) fn find(
        arguments: &Run,
        plan: &Plan,
        image: &StoredImage,
        hypervisor: &dyn Hypervisor,
        data: &DataDir,
    ) -> Self {
        let mut warm = Self { cache: Cache::open(data), candidate: None, program: None, entry: None };
        if arguments.warm.no_snapshot {
            return warm;
        }
        let reason = match Candidate::of(arguments, plan, image, hypervisor, data) {
            Ok(Ok(candidate)) => match (candidate.moment, &plan.job) {
                (Moment::Created, Job::Container(container)) => {
                    warm.program = program(container, image);
                    warm.candidate = warm.program.is_some().then_some(candidate);
                    warm.candidate.is_none().then(|| "what it runs is Podman's to know".to_owned())
                }
                _ => {
                    warm.candidate = Some(candidate);
                    None
                }
            },
            Ok(Err(reason)) => Some(reason.to_owned()),
            Err(error) => Some(format!("{error:#}")),
        };
        if let Some(reason) = reason {
            tracing::debug!(reason, "it boots");
        }
        if let Some(candidate) = &warm.candidate {
            warm.entry = warm.cache.find(&candidate.key, &candidate.host);
        }
        crate::failpoint::reach("warm-found");
        warm
    }

    /// What the machine goes on from.
    pub(super) fn origin(&self, entry: &Snapshot) -> anyhow::Result<Origin> {
        Ok(Origin { program: self.program.clone(), ..origin(entry, None, None)? })
    }

    /// Records how it starts, and the hardware address that the machine has already.
    pub(super) fn tell(&self, entry: &Snapshot, request: &Request, state: &mut VmState) {
        state.warm_start = self.candidate.as_ref().map(|candidate| candidate.moment);
        if let (Some(network), Some(saved)) = (&mut state.network, &entry.manifest().network)
            && request.mode != Mode::None
        {
            network.mac = saved.mac;
        }
    }

    /// Whether a run that failed so is to boot instead: nothing of its container has been seen.
    pub(super) fn may_boot(error: &VmError, state: &VmState) -> bool {
        state.started.is_none() && !matches!(error, VmError::Interrupted { .. })
    }

    /// What becomes of an entry from which a run could not go on: nobody does so again, unless it only was the
    /// wrong thing for this one.
    pub(super) fn judge(&mut self, entry: Snapshot, error: &VmError) {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        if matches!(error, VmError::Guest { kind: FailureKind::NotPrepared, .. }) {
            tracing::debug!(error = first, "it boots");
            self.entry = Some(entry);
            return;
        }
        tracing::warn!(error = first, "a prepared VM is unusable, and goes; this one boots");
        self.cache.discard_used(entry);
    }

    /// Whether there could be something to start from, and is nothing.
    pub(super) fn is_missing(&self) -> bool {
        match &self.candidate {
            Some(candidate) => self.entry.is_none() && !self.cache.has_failed(&candidate.key),
            None => false,
        }
    }
}

/// Has another process prepare a machine for runs like this one, when nobody waits for it.
pub(super) fn prepare_later(arguments: &Run) {
    if arguments.warm.no_snapshot || arguments.warm.no_prepare {
        return;
    }
    let start = || {
        keep_descriptors()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(PREPARER).args(env::args_os().skip(1));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0).spawn()
    };
    match start() {
        Ok(child) => tracing::debug!(pid = child.id(), "a VM is prepared for the next run"),
        Err(error) => tracing::debug!(%error, "no VM is prepared for the next run"),
    }
}
