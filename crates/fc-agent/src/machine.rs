//! What outlives a session: the job, its streams, its outcome.

use std::path::PathBuf;

use fcvm_link::Stream;
use fcvm_proto::{BootPlan, Failure, FailureKind, Interface, Job, Outcome, Port, Program, Restore, ToHost};
use tokio::sync::{mpsc, watch};

use crate::{
    build,
    container::{self, Runs, Wish},
    exec::{Execs, Rehearsal, Running},
    fault,
    guest::{self, Frozen, restored::Readiness},
    init::{self, DeferredModules},
    input::Input,
    output::{Outlet, OutputStreams},
    podman,
    prepared::{Gate, NotPrepared, Purpose},
    reaper::Reaper,
    tcp,
    volumes::{Lanes, Mounted, Volumes},
};

/// Streams and wishes that wait for a job to take them.
const QUEUE: usize = 64;

/// The guest's one job and the ends of its streams.
#[derive(Debug)]
pub(crate) struct Machine {
    outbox: mpsc::Sender<ToHost>,
    reaper: Reaper,
    input: mpsc::Sender<Stream>,
    stdout: Outlet,
    stderr: Outlet,
    wishes: mpsc::Sender<Wish>,
    execs: Execs,
    lanes: Lanes,
    mounted: Mounted,
    /// What the container is, while it runs.
    running: watch::Receiver<Option<Running>>,
    diagnosis: DeferredModules,
    frozen: Option<Frozen>,
    /// To become another guest.
    readiness: Option<Readiness>,
    rehearsal: Option<Rehearsal>,
    /// What interfaces were set up to be.
    interfaces: Vec<Interface>,
    /// What was applied last.
    restored: Option<Restore>,
    /// What a container is to be that waits for it.
    purpose: watch::Sender<Option<Purpose>>,
    /// Taken by the job.
    means: Option<Means>,
}

/// What the job has alone.
#[derive(Debug)]
struct Means {
    root: anyhow::Result<init::Disks>,
    volumes: Volumes,
    streams: container::Streams,
    wishes: mpsc::Receiver<Wish>,
    running: watch::Sender<Option<Running>>,
    purpose: watch::Receiver<Option<Purpose>>,
}

impl Machine {
    pub(crate) fn new(
        root: anyhow::Result<init::Disks>,
        outbox: mpsc::Sender<ToHost>,
        reaper: Reaper,
        lanes: Lanes,
        volumes: Volumes,
        diagnosis: DeferredModules,
    ) -> Self {
        let (input, stdin) = mpsc::channel(QUEUE);
        let (stdout, stdout_end) = OutputStreams::new(QUEUE);
        let (stderr, stderr_end) = OutputStreams::new(QUEUE);
        let (wishes, wishes_end) = mpsc::channel(QUEUE);
        let streams = container::Streams { stdin: Input::new(stdin), stdout: stdout_end, stderr: stderr_end };
        let (running, runs) = watch::channel(None);
        let (purpose, purposes) = watch::channel(None);
        Self {
            execs: Execs::new(reaper.clone(), runs.clone()),
            lanes,
            mounted: volumes.mounted(),
            running: runs,
            diagnosis,
            frozen: None,
            readiness: None,
            rehearsal: None,
            interfaces: Vec::new(),
            restored: None,
            purpose,
            outbox,
            reaper,
            input,
            stdout,
            stderr,
            wishes,
            means: Some(Means { root, volumes, streams, wishes: wishes_end, running, purpose: purposes }),
        }
    }

    /// A stream of the host for the container.
    pub(crate) fn attach(&self, port: Port, stream: Stream) {
        let wanted = match port {
            Port::Stdin => self.input.try_send(stream).is_ok(),
            Port::Stdout => self.stdout.attach(stream).is_ok(),
            Port::Stderr => self.stderr.attach(stream).is_ok(),
            Port::Control => return tracing::warn!("a second control stream was closed"),
            Port::Exec | Port::ExecStdin | Port::ExecStdout | Port::ExecStderr => {
                return self.execs.attach(port, stream);
            }
            Port::Tcp => {
                tokio::spawn(tcp::serve(stream));
                return;
            }
            Port::Volume => return self.lanes.attach(stream),
        };
        if !wanted {
            tracing::debug!(?port, "nobody wants the stream");
        }
    }

    /// Nobody reads an output of the container any more.
    pub(crate) fn close_output(&self, port: u32) {
        match Port::from_number(port) {
            Some(Port::Stdout) => self.stdout.close(),
            Some(Port::Stderr) => self.stderr.close(),
            _ => tracing::warn!(port, "no output has this port"),
        }
    }

    /// A wish for the container; kept until it runs.
    pub(crate) fn wish(&self, wish: Wish) {
        if self.wishes.try_send(wish).is_err() {
            tracing::debug!(?wish, "nobody wants it");
        }
    }

    /// Nothing on the scratch disk changes any more until [`thaw`](Self::thaw), outputs rest and volumes have nothing
    /// under way, once the host has heard of it, by the number that it gave.
    pub(crate) fn freeze(&mut self, number: u64) {
        self.stdout.rest();
        self.stderr.rest();
        // A machine that goes on from a snapshot is to be quick, and this one is not yet one.
        if let Err(error) = self.diagnosis.load() {
            tracing::debug!(error = format!("{error:#}"), "connections will not be ended");
        }
        let running = self.running.borrow().clone();
        match Readiness::open(running.as_ref()) {
            Ok(ready) => self.readiness = Some(ready),
            Err(error) => tracing::debug!(error = format!("{error:#}"), "a clone's start will take longer"),
        }
        if let Some(Err(error)) = running.map(|running| running.prepare()) {
            tracing::debug!(error = format!("{error:#}"), "a command's start will take longer");
        }
        self.rehearsal = if guest::is_emulated() { Rehearsal::fork().ok() } else { None };
        let outbox = self.outbox.clone();
        let told = move |frozen: std::io::Result<()>| {
            let failed = frozen.err().map(|error| error.to_string());
            drop(outbox.blocking_send(ToHost::Frozen(number, failed)));
        };
        let mounted = self.mounted.clone();
        let then = move || mounted.suspend().map_err(|error| std::io::Error::other(format!("{error:#}")));
        match Frozen::begin(self.frozen.take(), then, told) {
            Ok(frozen) => self.frozen = Some(frozen),
            Err(error) => {
                let answer = ToHost::Frozen(number, Some(error.to_string()));
                if self.outbox.try_send(answer).is_err() {
                    tracing::warn!("the host does not hear that the disk is not frozen");
                }
            }
        }
    }

    /// The host has left, and another may be there: what it will want is tried beside meeting it.
    pub(crate) fn rehearse(&self) {
        if let Some(rehearsal) = &self.rehearsal {
            rehearsal.begin();
        }
    }

    /// The guest is not one that will go on from a snapshot.
    pub(crate) fn relax(&mut self) {
        self.stdout.go_on();
        self.stderr.go_on();
        self.thaw();
        self.mounted.resume();
        self.rehearsal = None;
        if let Some(running) = &*self.running.borrow() {
            running.relax();
        }
    }

    /// The scratch disk may change again.
    fn thaw(&self) {
        if let Some(frozen) = &self.frozen {
            frozen.thaw();
        }
    }

    /// Becomes what the host says of a guest that goes on from a snapshot; once for each epoch.
    ///
    /// # Errors
    /// Where it does not become that. The disk is thawed all the same.
    pub(crate) fn restore(&mut self, restore: &Restore) -> anyhow::Result<()> {
        if self.restored.as_ref().is_some_and(|restored| restored.epoch == restore.epoch) {
            return Ok(());
        }
        self.mounted.await_lanes();
        let renewed = self.ready().and_then(|ready| ready.renew(restore).map(|()| ready));
        self.thaw();
        let ready = renewed?;
        ready.apply(restore, &self.interfaces)?;
        // A container that runs again is called what its guest is called by then.
        self.purpose.send_if_modified(|purpose| {
            if let Some(purpose) = purpose {
                purpose.identity.clone_from(&restore.identity);
                purpose.network.clone_from(&restore.network);
            }
            false
        });
        // Kept, as to close it is work as well.
        self.readiness = Some(ready);
        self.interfaces.clone_from(&restore.network.interfaces);
        self.restored = Some(restore.clone());
        Ok(())
    }

    fn ready(&mut self) -> anyhow::Result<Readiness> {
        let container = self.running.borrow().clone();
        match self.readiness.take().filter(|ready| ready.is_for(container.as_ref())) {
            Some(ready) => Ok(ready),
            None => Readiness::open(container.as_ref()),
        }
    }

    /// Lets the container that waits for its program have it; once, as it then runs that.
    pub(crate) fn run(&self, program: Program) {
        let Some(Restore { identity, network, .. }) = self.restored.clone() else {
            return tracing::warn!("a program for a guest that has not been restored");
        };
        let purpose = Purpose { program, identity, network };
        self.purpose.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(purpose);
            first
        });
    }

    /// Starts the job, once: a repeated plan is that of a host that reconnected.
    pub(crate) fn start(&mut self, plan: BootPlan) {
        let Some(means) = self.means.take() else {
            return tracing::debug!("the job has already been started");
        };
        self.interfaces.clone_from(&plan.network.interfaces);
        if let Job::Container(container) = &plan.job
            && let Some(program) = container.program.clone()
        {
            let (identity, network) = (plan.identity.clone(), plan.network.clone());
            self.purpose.send_replace(Some(Purpose { program, identity, network }));
        }
        let (outbox, reaper) = (self.outbox.clone(), self.reaper.clone());
        tokio::spawn(async move {
            let Err(failure) = work(plan, means, &outbox, &reaper).await else {
                return;
            };
            let failure = Failure { kind: failure.kind, message: format!("{:#}", failure.error) };
            drop(outbox.send(ToHost::Ended(Outcome::Failed(failure))).await);
        });
    }
}

/// A failure with its kind.
struct JobError {
    kind: FailureKind,
    error: anyhow::Error,
}

impl<E: Into<anyhow::Error>> From<E> for JobError {
    fn from(error: E) -> Self {
        Self { kind: FailureKind::Other, error: error.into() }
    }
}

fn disk_error(error: anyhow::Error) -> JobError {
    JobError { kind: FailureKind::Disk, error }
}

/// Does the job; its end is told by then, unless it failed.
async fn work(
    plan: BootPlan,
    means: Means,
    outbox: &mpsc::Sender<ToHost>,
    reaper: &Reaper,
) -> Result<(), JobError> {
    let Means { root, volumes, streams, wishes, running, purpose } = means;
    let disks = root.map_err(disk_error)?;
    if !PathBuf::from(podman::PROGRAM).exists() {
        let error = anyhow::anyhow!("the base disk has no `{}`", crate::podman::PROGRAM);
        return Err(JobError { kind: FailureKind::Base, error });
    }
    guest::apply(&plan)?;
    fault::reach("plan");
    let volume_error = |error| JobError { kind: FailureKind::Volume, error };
    let mounts = volumes.mount(&plan.volumes).await.map_err(volume_error)?;
    match plan.job {
        Job::Container(ref container) | Job::Prepare(ref container) => {
            let image =
                disks.others.first().ok_or_else(|| anyhow::anyhow!("the machine has no image disk"))?;
            init::mount_image(image).map_err(disk_error)?;
            podman::make_volumes(container, reaper).await.map_err(volume_error)?;
            let waits = matches!(plan.job, Job::Prepare(_)) || container.program.is_some();
            let gate = waits.then(|| Gate::open(purpose)).transpose()?;
            let (name, known, mounts) = (&*plan.identity.name, &running, &mounts);
            let runs = Runs { name, container, streams, wishes, outbox, reaper, known, mounts, gate };
            runs.run().await.map_err(|error| match error.is::<NotPrepared>() {
                true => JobError { kind: FailureKind::NotPrepared, error },
                false => error.into(),
            })?;
        }
        Job::BuildImage => {
            build::run(&disks.others, reaper).await?;
            drop(outbox.send(ToHost::Ended(Outcome::Status(0))).await);
        }
    }
    Ok(())
}
