//! One boot of a VM, from its launch to its outcome.

mod ending;
mod filling;
mod greeting;
mod orders;
mod runs;
mod saving;

use std::{mem, path::PathBuf};

use fcvm_link::{Opener, Stream};
use fcvm_proto::{LogLevel, LogRecord, Outcome, Port, Stage, ToGuest, ToHost, session::LinkKey};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Timings, VmError,
    console::{Source, Tail},
    control::{Action, Order, Server as Control},
    guest::Guest,
    heartbeat::{Beat, Heartbeat},
    outputs::Outputs,
    restarts::Restarts,
    run::{Origin, Plan},
    signals::{Signals, Sizes},
    spool::Done,
    stopping::{Step, Stopping},
};
use crate::{
    exit,
    health::Report,
    hypervisor::{Connecting, Hypervisor, Machine, Save, Stop, VmmProcess},
    network::{
        Network,
        by_link::{self, Linked},
    },
    output::{RawMode, sanitize, terminal_size},
    process::{Owner, Parent, SignalNumber},
    snapshot::Moment,
    state::{Claim, HealthStatus, Status, VmState},
    volume::{self, Server, VolumeError, Ways},
};

/// The status of a container that ran for too long, as Podman's.
const TIMED_OUT: u8 = 255;

/// Who serves the guest's volumes, and by how many lanes each.
#[derive(Debug)]
pub(super) struct Volumes {
    servers: Vec<Server>,
    lanes: u16,
    /// What the servers say.
    _messages: Vec<Tail>,
}

impl Volumes {
    /// Waits until all serve.
    ///
    /// # Errors
    /// Where one does not.
    pub(in crate::vm) fn of(mut servers: Vec<Server>, lanes: u16) -> Result<Self, VmError> {
        servers.iter().try_for_each(Server::ready)?;
        let messages = servers.iter_mut().filter_map(Server::messages);
        let messages = messages.map(|messages| Tail::read(messages, Source::Volume, None));
        let messages = messages
            .collect::<Result<_, _>>()
            .map_err(|source| VmError::Host { what: "read what a volume's server says", source })?;
        Ok(Self { servers, lanes, _messages: messages })
    }

    /// Opens all lanes. `beside` leads to the guest beside the link, where the machine has that.
    async fn connect(
        &self,
        opener: &Opener,
        beside: impl Fn() -> Option<Connecting>,
    ) -> Result<Ways, VolumeError> {
        let ways = volume::connect(&self.servers, self.lanes, opener, beside).await?;
        crate::failpoint::reach("volumes-connected");
        Ok(ways)
    }
}

/// What a machine has beside its disks.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) volumes: Volumes,
    pub(super) network: Option<&'a Network>,
    /// How many CPUs it has: of a second chance one.
    pub(super) cpus: u8,
    /// Opens sessions with the agent.
    pub(super) link_key: LinkKey,
    /// Where the machine is saved.
    pub(super) save_dir: PathBuf,
}

/// A launched machine on its way through its states.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    hypervisor: &'a dyn Hypervisor,
    plan: &'a Plan,
    claim: &'a mut Claim,
    timings: &'a mut Timings,
    process: VmmProcess,
    link: Option<Connecting>,
    cpus: u8,
    link_key: LinkKey,
    save: Box<dyn Save>,
    save_dir: PathBuf,
    /// Snapshots that are being written: the machine runs on meanwhile.
    writing: JoinSet<()>,
    /// What the guest is told of its network.
    network: fcvm_proto::Network,
    /// Published ports that lead to the guest by the link.
    ports: Vec<Linked>,
    volumes: Volumes,
    /// What moves the bytes of volumes.
    ways: Ways,
    console: Tail,
    messages: Tail,
    stopped: watch::Receiver<Option<Stop>>,
    started: bool,
    /// Whether the container waits for its program.
    waits: bool,
    /// Takes the streams for the container's input.
    input: Option<mpsc::Sender<Stream>>,
    /// Ours, while the container has it.
    terminal: Option<RawMode>,
    /// What the parent of a detached start says of it, while that is not known.
    unheard: Option<&'a Parent>,
    server: Option<Control>,
    stopping: Stopping,
    restarts: &'a mut Restarts,
    /// When the next run begins, between two.
    resting: Option<Instant>,
    /// When this run has taken too long.
    deadline: Option<Instant>,
    timed_out: bool,
    /// Nobody wants the machine any more.
    unwanted: bool,
    heartbeat: Option<Heartbeat>,
    health: Option<mpsc::Receiver<Report>>,
    /// What checks the health.
    checking: JoinSet<()>,
    /// The user leaves a container that has our terminal.
    leaving: (mpsc::Sender<()>, mpsc::Receiver<()>),
}

impl<'a> Attempt<'a> {
    /// Takes a machine into care: reads its console, records its process.
    ///
    /// # Errors
    /// Where either cannot be done.
    pub(in crate::vm) fn new(
        hypervisor: &'a dyn Hypervisor,
        plan: &'a Plan,
        claim: &'a mut Claim,
        timings: &'a mut Timings,
        machine: Machine,
        restarts: &'a mut Restarts,
        parts: Parts<'_>,
    ) -> Result<Self, VmError> {
        let read = |source| VmError::Host { what: "read the guest's console", source };
        let log = claim.directory().join("console.log");
        let console = Tail::read(machine.console, Source::Console, Some(&log)).map_err(read)?;
        let messages = Tail::read(machine.messages, Source::Hypervisor, None).map_err(read)?;
        let owner = Owner::of(machine.process.pid()).ok().flatten();
        claim.update(|state| {
            state.hypervisor_process = owner;
            state.status = Status::Starting;
        })?;
        crate::failpoint::reach("hypervisor-recorded");
        Ok(Self {
            hypervisor,
            plan,
            claim,
            timings,
            process: machine.process,
            link: Some(machine.link),
            cpus: parts.cpus,
            link_key: parts.link_key,
            save: machine.save,
            save_dir: parts.save_dir,
            writing: JoinSet::new(),
            ports: parts
                .network
                .map_or_else(|| Ok(Vec::new()), Network::linked)
                .map_err(|source| VmError::Host { what: "listen at the VM's ports", source })?,
            network: match parts.network {
                Some(network) => network.told(machine.interfaces),
                None => fcvm_proto::Network { interfaces: machine.interfaces, ..Default::default() },
            },
            volumes: parts.volumes,
            ways: Ways::new(),
            console,
            messages,
            stopped: machine.stopped,
            started: false,
            waits: false,
            input: None,
            terminal: None,
            unheard: None,
            server: None,
            stopping: Stopping::default(),
            restarts,
            resting: None,
            deadline: None,
            timed_out: false,
            unwanted: false,
            heartbeat: None,
            health: None,
            checking: JoinSet::new(),
            leaving: mpsc::channel(1),
        })
    }

    /// From `Hello` to the outcome, output included.
    ///
    /// # Errors
    /// Where there is no outcome, and why.
    pub(in crate::vm) async fn converse(
        &mut self,
        signals: &mut Signals,
        outputs: &Outputs,
    ) -> Result<u8, VmError> {
        let mut guest = self.greet(signals).await?;
        tracing::debug!(target: "agent", build = %sanitize(&guest.hello.build), kernel = %sanitize(&guest.hello.kernel), "hello");
        crate::failpoint::reach("streams-open");
        let mut carrying = JoinSet::new();
        carrying.spawn(by_link::serve(mem::take(&mut self.ports), guest.opener()));
        let mut orders = self.listen(&guest)?;
        crate::failpoint::reach("control-listens");
        let mut filling = self.fill(&guest, outputs)?;
        let mut filled = false;
        let mut told = [false; 2];
        let mut interrupted = false;
        let mut sizes =
            Sizes::listen().map_err(|source| VmError::Host { what: "listen to signals", source })?;
        let server = self.plan.origin.as_ref().and_then(|origin| origin.server.as_ref());
        let mut outcome = None;
        match &self.plan.origin {
            Some(Origin { program: Some(program), .. }) => {
                guest.order(ToGuest::Run(Box::new(program.clone())));
            }
            Some(Origin { machine: Some(_), .. }) => {
                self.begin(&guest)?;
                self.forward_input(&guest)?;
                // That of the saved machine was another one.
                if let Some(size) = self.terminal.as_ref().and_then(|_| terminal_size()) {
                    guest.order(ToGuest::Resize(size));
                }
            }
            _ => {}
        }
        let status = loop {
            if let Some(keep) = self.plan.keep.as_ref().filter(|keep| self.is_at(keep.at)) {
                return self.keep(keep, &mut guest).await.map(|()| 0);
            }
            if let Some(status) = outcome.filter(|_| filled && self.unheard.is_none())
                && !self.rests(status)
            {
                return Ok(status);
            }
            tokio::select! {
                biased;
                message = guest.message() => match message {
                    Some(message) => outcome = self.hear(message?, &guest)?.or(outcome),
                    None => {
                        let closed = VmError::Violation { what: "it closed the control stream".into() };
                        return Err(self.settle(closed).await);
                    }
                },
                () = filling.filled() => filled = true,
                heard = heard(self.unheard) => self.settled(heard, &guest)?,
                Some(order) = next(orders.as_mut()) => match order {
                    Order { action: Action::Snapshot(wanted), reply } => {
                        self.snapshot(wanted, reply, &mut guest).await?;
                        if self.save.breaks_connections() {
                            self.open_input(&guest);
                            filling.open(&guest.opener());
                        }
                    }
                    order => self.obey(order, &guest),
                },
                step = self.stopping.due(), if outcome.is_none() => match step {
                    Step::Kill => self.signal(SignalNumber::KILL, &guest),
                    Step::Look => {
                        self.stopping.looked(self.heartbeat.as_ref().is_some_and(Heartbeat::responds));
                    }
                    Step::GiveUp if self.unwanted => return Ok(exit::KILLED),
                    Step::GiveUp if self.timed_out => return Ok(TIMED_OUT),
                    Step::GiveUp => {
                        return Err(VmError::Interrupted { signal: SignalNumber::KILL.number() });
                    }
                },
                signal = signals.next() => {
                    if Signals::ends(signal) {
                        self.restarts.end();
                        if interrupted || (!self.started && outcome.is_none()) {
                            return Err(VmError::Interrupted { signal });
                        }
                        interrupted = true;
                    }
                    guest.order(ToGuest::Signal(signal));
                }
                size = sizes.next(), if self.plan.has_terminal() => {
                    guest.order(ToGuest::Resize(size));
                }
                done = outputs.stdout.done(), if !told[0] => {
                    told[0] = true;
                    closed(&guest, Port::Stdout, done);
                }
                done = outputs.stderr.done(), if !told[1] => {
                    told[1] = true;
                    closed(&guest, Port::Stderr, done);
                }
                () = reached(self.deadline) => self.time_out(&guest),
                () = reached(self.resting) => {
                    self.resting = None;
                    (outcome, filled, told) = (None, false, [false; 2]);
                    filling = self.fill(&guest, outputs)?;
                    self.run_again(&guest);
                }
                Some(()) = self.leaving.1.recv() => self.leave(outputs)?,
                beat = beat(self.heartbeat.as_mut()) => match beat {
                    Beat::Ask(number) => guest.order(ToGuest::Ping(number)),
                    Beat::Lost => {
                        self.responds(false);
                        self.stopping.lost();
                    }
                },
                Some(report) = next(self.health.as_mut()) => self.judge(report),
                pid = deserted(server) => return Err(VmError::ServerEnded { pid }),
                status = self.process.wait() => break status,
            }
        };
        // The outcome may have come in the last breath.
        while outcome.is_none()
            && let Some(message) = guest.message().await
        {
            outcome = self.hear(message?, &guest)?;
        }
        // One that is to run again died in between.
        let outcome = outcome.filter(|_| self.resting.is_none());
        match outcome {
            Some(status) => {
                filling.finish().await;
                if self.unheard.is_some() {
                    let heard = heard(self.unheard).await;
                    self.settled(heard, &guest)?;
                }
                Ok(status)
            }
            None => Err(self.died(status).await),
        }
    }

    /// Takes in a message; the container's status where it is the last.
    fn hear(&mut self, message: ToHost, guest: &Guest) -> Result<Option<u8>, VmError> {
        match message {
            ToHost::Log(record) => log(&record),
            ToHost::Reached(stage, nanos) => {
                self.timings.reached(stage, nanos);
                self.waits |= stage == Stage::Waits;
                if stage == Stage::ContainerStarted && !self.started {
                    crate::failpoint::reach("container-started");
                    self.begin(guest)?;
                    self.forward_input(guest)?;
                }
            }
            ToHost::Ended(Outcome::Status(status)) => {
                // It may have been too fast for anyone to see it run.
                if !self.started && !exit::NOT_STARTED.contains(&status) {
                    self.begin(guest)?;
                }
                crate::failpoint::reach("status-known");
                let status = if self.timed_out { TIMED_OUT } else { status };
                self.timings.mark("podman exit");
                self.rest();
                self.record(|state| {
                    state.status = Status::Stopping;
                    state.health_status = HealthStatus::Stopped;
                    state.exit_code = Some(status);
                });
                crate::failpoint::reach("status-recorded");
                return Ok(Some(status));
            }
            ToHost::Pong(number) => {
                if self.heartbeat.as_mut().is_some_and(|heartbeat| heartbeat.answered(number)) {
                    self.responds(true);
                }
            }
            // Answers that came too late for who asked.
            ToHost::Frozen(..) | ToHost::Restored(_) => tracing::debug!("an answer nobody waits for"),
            ToHost::Ended(Outcome::Failed(failure)) => {
                return Err(VmError::Guest { kind: failure.kind, message: sanitize(&failure.message) });
            }
        }
        Ok(None)
    }

    /// Whether the machine is what others are to go on from.
    fn is_at(&self, moment: Moment) -> bool {
        match moment {
            Moment::Created => self.waits,
            Moment::Healthy => self.started && self.claim.state().health_status == HealthStatus::Healthy,
        }
    }

    /// Changes the record of a container that has begun: a full disk, say, is no reason to end it.
    fn record(&mut self, change: impl FnOnce(&mut VmState)) {
        if let Err(error) = self.claim.update(change) {
            let error = anyhow::Error::from(error);
            tracing::warn!(error = format!("{error:#}"), "the VM's record is behind");
        }
    }
}

/// The parent's word, where one is waited for.
async fn heard(parent: Option<&Parent>) -> bool {
    match parent {
        Some(parent) => parent.heard().await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of who serves a machine's memory, where somebody does; the process.
pub(super) async fn deserted(server: Option<&Owner>) -> i32 {
    match server {
        Some(server) => {
            if let Err(error) = server.ended().await {
                tracing::warn!(%error, "the page server cannot be watched");
                std::future::pending::<()>().await;
            }
            server.pid
        }
        None => std::future::pending().await,
    }
}

/// Waits for a moment, where there is one.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What is to be done to know whether the guest answers, where that is asked.
async fn beat(heartbeat: Option<&mut Heartbeat>) -> Beat {
    match heartbeat {
        Some(heartbeat) => heartbeat.due().await,
        None => std::future::pending().await,
    }
}

/// What comes next, where it can come.
async fn next<T>(orders: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match orders {
        Some(orders) => orders.recv().await,
        None => std::future::pending().await,
    }
}

/// Tells the guest that an output has lost its reader.
fn closed(guest: &Guest, port: Port, done: Done) {
    tracing::debug!(?port, ?done, "nobody reads this output any more");
    guest.order(ToGuest::OutputClosed(port.number()));
}

fn log(record: &LogRecord) {
    let text = sanitize(&record.message);
    match record.level {
        LogLevel::Error | LogLevel::Warn => tracing::warn!(target: "agent", "{text}"),
        LogLevel::Info | LogLevel::Debug => tracing::debug!(target: "agent", "{text}"),
    }
}
