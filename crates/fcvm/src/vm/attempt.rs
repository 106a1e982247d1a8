//! One boot of a VM, from its launch to its outcome.

use std::{
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fcvm_link::Stream;
use fcvm_proto::{
    BootPlan, Identity, Job, LogLevel, LogRecord, Network, Outcome, Port, Stage, ToGuest, ToHost,
    session::{KEY_LEN, LinkKey, SessionId},
};
use jiff::Timestamp;
use tokio::{
    net::UnixStream,
    process::Child,
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    Timings, VmError,
    boot::watchdog,
    console::{Source, Tail},
    control::{Action, Order, Reply, Server},
    guest::Guest,
    input,
    outputs::Outputs,
    run::{Input, Plan, random},
    signals::{Signals, Sizes},
    spool::Done,
    stopping::{Step, Stopping},
};
use crate::{
    exit,
    hypervisor::{Hypervisor, Machine, Stop},
    output::{RawMode, sanitize},
    process::{Owner, Parent, SignalNumber},
    state::{Claim, HealthStatus, Status, VmState},
};

/// Random bytes for a guest.
const ENTROPY: usize = 64;
/// A hypervisor whose link broke because it ends has ended by then.
const DYING: Duration = Duration::from_secs(5);

/// Output and error output of a container.
type Streams = Option<(Stream, Option<Stream>)>;

/// A launched machine on its way through its states.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    hypervisor: &'a dyn Hypervisor,
    plan: &'a Plan,
    claim: &'a mut Claim,
    timings: &'a mut Timings,
    process: Child,
    link: Option<UnixStream>,
    console: Tail,
    messages: Tail,
    stopped: watch::Receiver<Option<Stop>>,
    started: bool,
    /// Ours, while the container has it.
    terminal: Option<RawMode>,
    /// What the parent of a detached start says of it, while that is not known.
    unheard: Option<&'a Parent>,
    server: Option<Server>,
    stopping: Stopping,
}

impl<'a> Attempt<'a> {
    /// Takes a machine into care: reads its console, records its process.
    ///
    /// # Errors
    /// Where either cannot be done.
    pub(super) fn new(
        hypervisor: &'a dyn Hypervisor,
        plan: &'a Plan,
        claim: &'a mut Claim,
        timings: &'a mut Timings,
        machine: Machine,
    ) -> Result<Self, VmError> {
        let read = |source| VmError::Host { what: "read the guest's console", source };
        let log = claim.directory().join("console.log");
        let console = Tail::read(machine.console, Source::Console, Some(&log)).map_err(read)?;
        let messages = Tail::read(machine.messages, Source::Hypervisor, None).map_err(read)?;
        let pid = machine.process.id().map(u32::cast_signed);
        let owner = pid.and_then(|pid| Owner::of(pid).ok().flatten());
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
            console,
            messages,
            stopped: machine.stopped,
            started: false,
            terminal: None,
            unheard: None,
            server: None,
            stopping: Stopping::default(),
        })
    }

    /// From `Hello` to the outcome, output included.
    ///
    /// # Errors
    /// Where there is no outcome, and why.
    pub(super) async fn converse(
        &mut self,
        key: LinkKey,
        signals: &mut Signals,
        outputs: &Outputs,
    ) -> Result<u8, VmError> {
        let (mut guest, streams) = self.greet(key, signals).await?;
        self.timings.hello(&guest.hello);
        tracing::debug!(target: "agent", build = %sanitize(&guest.hello.build), kernel = %sanitize(&guest.hello.kernel), "hello");
        crate::failpoint::reach("streams-open");
        let mut orders = self.listen(&guest)?;
        crate::failpoint::reach("control-listens");
        let filling = async {
            if let Some((stdout, stderr)) = streams {
                let stderr = async {
                    if let Some(stderr) = stderr {
                        outputs.stderr.fill(stderr).await;
                    }
                };
                tokio::join!(outputs.stdout.fill(stdout), stderr);
            }
        };
        tokio::pin!(filling);
        let mut filled = false;
        let mut told = [false; 2];
        let mut interrupted = false;
        let mut sizes =
            Sizes::listen().map_err(|source| VmError::Host { what: "listen to signals", source })?;
        let mut outcome = None;
        let status = loop {
            if let Some(status) = outcome.filter(|_| filled && self.unheard.is_none()) {
                return Ok(status);
            }
            tokio::select! {
                biased;
                message = guest.message(), if outcome.is_none() => match message {
                    Some(message) => outcome = self.hear(message?, &guest)?,
                    None => {
                        let closed = VmError::Violation { what: "it closed the control stream".into() };
                        return Err(self.settle(closed).await);
                    }
                },
                () = &mut filling, if !filled => filled = true,
                heard = heard(self.unheard) => self.settled(heard)?,
                Some(order) = next(orders.as_mut()) => self.obey(order, &guest),
                step = self.stopping.due(), if outcome.is_none() => match step {
                    Step::Kill => self.signal(SignalNumber::KILL, &guest),
                    Step::GiveUp => {
                        return Err(VmError::Interrupted { signal: SignalNumber::KILL.number() });
                    }
                },
                signal = signals.next() => {
                    if Signals::ends(signal) && (interrupted || !self.started) {
                        return Err(VmError::Interrupted { signal });
                    }
                    interrupted |= Signals::ends(signal);
                    guest.order(ToGuest::Signal(signal));
                }
                size = sizes.next(), if self.plan.has_terminal() => {
                    guest.order(ToGuest::Resize(size));
                }
                done = outputs.stdout.done(), if !told[0] && !filled => {
                    told[0] = true;
                    closed(&guest, Port::Stdout, done);
                }
                done = outputs.stderr.done(), if !told[1] && !filled => {
                    told[1] = true;
                    closed(&guest, Port::Stderr, done);
                }
                status = self.process.wait() => break status,
            }
        };
        // The outcome may have come in the last breath.
        while outcome.is_none()
            && let Some(message) = guest.message().await
        {
            outcome = self.hear(message?, &guest)?;
        }
        match outcome {
            Some(status) => {
                filling.await;
                if self.unheard.is_some() {
                    let heard = heard(self.unheard).await;
                    self.settled(heard)?;
                }
                Ok(status)
            }
            None => Err(self.died(status).await),
        }
    }

    /// Waits for the agent, gives it the plan and opens the streams of its output. All that
    /// waits for the guest is in one place, beside what may happen meanwhile.
    async fn greet(&mut self, key: LinkKey, signals: &mut Signals) -> Result<(Guest, Streams), VmError> {
        let Some(link) = self.link.take() else {
            return Err(VmError::Violation { what: "the link has been used".into() });
        };
        let capabilities = self.hypervisor.capabilities();
        let pid = self.process.id();
        let id = SessionId(random::<KEY_LEN>()?);
        let plan = self.boot_plan()?;
        let job = &self.plan.job;
        let met = async {
            let guest = Guest::connect(link, key, id, plan).await?;
            // Only a container has output.
            let streams = match job {
                Job::Container(container) => {
                    let stdout = guest.open(Port::Stdout).await?;
                    // A terminal is one stream.
                    let stderr = match container.terminal {
                        Some(_) => None,
                        None => Some(guest.open(Port::Stderr).await?),
                    };
                    Some((stdout, stderr))
                }
                Job::BuildImage => None,
            };
            Ok((guest, streams))
        };
        tokio::select! {
            met = met => match met {
                Err(error @ VmError::Violation { .. }) => Err(self.settle(error).await),
                met => met,
            },
            status = self.process.wait() => Err(self.died(status).await),
            signal = signals.next() => Err(VmError::Interrupted { signal }),
            had = watchdog(pid, &capabilities) => {
                self.kill().await;
                Err(VmError::NotResponding { seconds: had.as_secs(), console: self.console.last_lines() })
            }
        }
    }

    fn boot_plan(&self) -> Result<BootPlan, VmError> {
        let state = self.claim.state();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(BootPlan {
            identity: Identity {
                id: state.id.as_str().to_owned(),
                name: state.name.to_string(),
                hostname: self.plan.hostname.clone(),
            },
            time_unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            entropy: random::<ENTROPY>()?.to_vec(),
            network: Network::default(),
            job: self.plan.job.clone(),
        })
    }

    /// Takes in a message; the container's status where it is the last.
    fn hear(&mut self, message: ToHost, guest: &Guest) -> Result<Option<u8>, VmError> {
        match message {
            ToHost::Log(record) => log(&record),
            ToHost::Reached(stage, nanos) => {
                self.timings.reached(stage, nanos);
                if stage == Stage::ContainerStarted && !self.started {
                    crate::failpoint::reach("container-started");
                    self.begin()?;
                    if self.plan.input == Input::Inherited {
                        // Not before: Ctrl-C ends a boot.
                        if self.plan.has_terminal() {
                            self.terminal = RawMode::set()
                                .map_err(|source| VmError::Host { what: "set up the terminal", source })?;
                        }
                        self.forward_input(guest);
                    }
                }
            }
            ToHost::Ended(Outcome::Status(status)) => {
                // It may have been too fast for anyone to see it run.
                if !self.started && !exit::NOT_STARTED.contains(&status) {
                    self.begin()?;
                }
                crate::failpoint::reach("status-known");
                self.timings.mark("podman exit");
                self.record(|state| {
                    state.status = Status::Stopping;
                    state.health_status = HealthStatus::Stopped;
                    state.exit_code = Some(status);
                });
                crate::failpoint::reach("status-recorded");
                return Ok(Some(status));
            }
            ToHost::Ended(Outcome::Failed(failure)) => {
                return Err(VmError::Guest { kind: failure.kind, message: sanitize(&failure.message) });
            }
        }
        Ok(None)
    }

    /// The container runs: who started it in the background hears of it first.
    fn begin(&mut self) -> Result<(), VmError> {
        self.started = true;
        self.unheard = self.plan.parent.as_ref();
        match self.unheard {
            Some(parent) => {
                // Of what its parent knows as started something is left, whatever comes.
                self.record(|state| state.started = Some(Timestamp::now()));
                crate::failpoint::reach("start-recorded");
                parent.announce(self.claim.state().id.as_str());
                crate::failpoint::reach("announced");
                Ok(())
            }
            None => self.settled(true),
        }
    }

    /// Whoever started it has heard of it, or does not want it any more.
    fn settled(&mut self, heard: bool) -> Result<(), VmError> {
        if !heard {
            self.record(|state| state.started = None);
            return Err(VmError::Interrupted { signal: SignalNumber::TERM.number() });
        }
        if let Some(parent) = self.unheard.take() {
            crate::failpoint::reach("heard");
            parent.release().map_err(|source| VmError::Host { what: "leave the parent", source })?;
            crate::failpoint::reach("released");
        }
        self.record(|state| {
            // It may have ended meanwhile.
            if state.status == Status::Starting {
                state.status = Status::Running;
                state.health_status = HealthStatus::Healthy;
            }
            state.started.get_or_insert_with(Timestamp::now);
        });
        crate::failpoint::reach("running-recorded");
        Ok(())
    }

    /// Lets other processes in; only a container has anything for them.
    fn listen(&mut self, guest: &Guest) -> Result<Option<mpsc::Receiver<Order>>, VmError> {
        if !matches!(self.plan.job, Job::Container(_)) {
            return Ok(None);
        }
        let directory = self.claim.runtime_dir();
        let (server, orders) = Server::listen(directory, guest.opener())
            .map_err(|source| VmError::Control { path: directory.to_owned(), source })?;
        self.server = Some(server);
        Ok(Some(orders))
    }

    /// Does what another process asks for.
    fn obey(&mut self, order: Order, guest: &Guest) {
        let reply = if self.started {
            match order.action {
                Action::Signal(signal) => self.signal(signal, guest),
                Action::Stop(grace) => {
                    crate::failpoint::reach("stop-ordered");
                    guest.order(ToGuest::Signal(self.plan.stop_signal.number()));
                    self.stopping.asked(grace);
                }
            }
            Reply::Done
        } else {
            Reply::Refused("its container does not run yet".into())
        };
        // Who asked may be gone.
        drop(order.reply.send(reply));
    }

    fn signal(&mut self, signal: SignalNumber, guest: &Guest) {
        guest.order(ToGuest::Signal(signal.number()));
        if signal == SignalNumber::KILL {
            crate::failpoint::reach("kill-ordered");
            self.stopping.killed();
        }
    }

    /// Tells other processes how it ended, and lets none in any more.
    pub(super) async fn farewell(&mut self, status: Option<u8>) {
        if let Some(server) = self.server.take() {
            server.end(status).await;
        }
    }

    /// Changes the record of a container that has begun: a full disk, say, is no reason to end it.
    fn record(&mut self, change: impl FnOnce(&mut VmState)) {
        if let Err(error) = self.claim.update(change) {
            let error = anyhow::Error::from(error);
            tracing::warn!(error = format!("{error:#}"), "the VM's record is behind");
        }
    }

    /// Not before the container runs: input that a failed boot took would be lost for the next.
    fn forward_input(&self, guest: &Guest) {
        let opener = guest.opener();
        tokio::spawn(async move {
            match opener.open(Port::Stdin).await {
                Ok(stream) => input::copy(stream).await,
                Err(error) => tracing::debug!(%error, "no stream for the input"),
            }
        });
    }

    /// What a broken link means: most often a machine that is dying and knows why. One that
    /// goes on without a link is killed by the caller, and the link's error stands.
    async fn settle(&mut self, error: VmError) -> VmError {
        match timeout(DYING, self.process.wait()).await {
            Ok(status) => self.died(status).await,
            Err(_) => error,
        }
    }

    /// Why a machine ended that should not have.
    async fn died(&mut self, status: io::Result<std::process::ExitStatus>) -> VmError {
        let status = match status {
            Ok(status) => status,
            Err(source) => return VmError::Host { what: "wait for the hypervisor", source },
        };
        self.console.end().await;
        self.messages.end().await;
        let console = self.console.last_lines();
        if let Some(reason) = self.console.panic() {
            return VmError::Panicked { reason, console, started: self.started };
        }
        let stop = self.stopped.borrow().clone();
        let how = match stop {
            Some(Stop::PoweredOff) => "powered off".to_owned(),
            Some(Stop::Reset) => "reset".to_owned(),
            Some(Stop::Other(cause)) => format!("stopped ({})", sanitize(&cause)),
            None => {
                let (hypervisor, messages) = (self.hypervisor.name(), self.messages.last_lines());
                return VmError::HypervisorDied { hypervisor, status, messages };
            }
        };
        VmError::Stopped { how, console }
    }

    /// Ends the hypervisor, and waits for its end.
    pub(super) async fn kill(&mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::debug!(%error, "the hypervisor was already gone");
        }
        if let Some(parent) = self.unheard.take()
            && !parent.heard().await
        {
            self.record(|state| state.started = None);
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

/// The next order, where they can come.
async fn next(orders: Option<&mut mpsc::Receiver<Order>>) -> Option<Order> {
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
