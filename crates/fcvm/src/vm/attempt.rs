//! One boot of a VM, from its launch to its outcome.

use std::{
    io,
    os::fd::AsFd as _,
    pin::Pin,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fcvm_link::Opener;
use fcvm_proto::{
    BootPlan, Identity, Job, LogLevel, LogRecord, Network, Outcome, Port, Stage, ToGuest, ToHost,
    session::{KEY_LEN, LinkKey, SessionId},
};
use jiff::Timestamp;
use tokio::{
    net::UnixStream,
    process::Child,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Timings, VmError,
    boot::watchdog,
    console::{Source, Tail},
    control::{Action, Order, Reply, Server},
    guest::Guest,
    heartbeat::{Beat, Heartbeat},
    input::{self, End},
    outputs::{One, Outputs},
    restarts::Restarts,
    run::{Input, Plan, Starter, random},
    signals::{Signals, Sizes},
    spool::Done,
    stopping::{Step, Stopping},
};
use crate::{
    exit,
    health::{self, Report},
    hypervisor::{Hypervisor, Machine, Stop},
    output::{RawMode, sanitize},
    process::{Owner, Parent, SignalNumber},
    state::{Claim, HEALTH_LOG, HealthStatus, Status, VmState},
};

/// Random bytes for a guest.
const ENTROPY: usize = 64;
/// A hypervisor whose link broke because it ends has ended by then.
const DYING: Duration = Duration::from_secs(5);
/// The status of a container that ran for too long, as Podman's.
const TIMED_OUT: u8 = 255;

/// Moves a run's output, from its streams' beginning to their end.
type Filling<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

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
    /// Whether the container has had its input.
    fed: bool,
    /// Ours, while the container has it.
    terminal: Option<RawMode>,
    /// What the parent of a detached start says of it, while that is not known.
    unheard: Option<&'a Parent>,
    server: Option<Server>,
    stopping: Stopping,
    restarts: &'a mut Restarts,
    /// When the next run begins, between two.
    resting: Option<Instant>,
    /// When this run has taken too long.
    deadline: Option<Instant>,
    timed_out: bool,
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
    pub(super) fn new(
        hypervisor: &'a dyn Hypervisor,
        plan: &'a Plan,
        claim: &'a mut Claim,
        timings: &'a mut Timings,
        machine: Machine,
        restarts: &'a mut Restarts,
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
            fed: false,
            terminal: None,
            unheard: None,
            server: None,
            stopping: Stopping::default(),
            restarts,
            resting: None,
            deadline: None,
            timed_out: false,
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
    pub(super) async fn converse(
        &mut self,
        key: LinkKey,
        signals: &mut Signals,
        outputs: &Outputs,
    ) -> Result<u8, VmError> {
        let mut guest = self.greet(key, signals).await?;
        self.timings.hello(&guest.hello);
        tracing::debug!(target: "agent", build = %sanitize(&guest.hello.build), kernel = %sanitize(&guest.hello.kernel), "hello");
        crate::failpoint::reach("streams-open");
        let mut orders = self.listen(&guest)?;
        crate::failpoint::reach("control-listens");
        let mut filling = self.fill(&guest, outputs);
        let mut filled = false;
        let mut told = [false; 2];
        let mut interrupted = false;
        let mut sizes =
            Sizes::listen().map_err(|source| VmError::Host { what: "listen to signals", source })?;
        let mut outcome = None;
        let status = loop {
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
                () = &mut filling, if !filled => filled = true,
                heard = heard(self.unheard) => self.settled(heard, &guest)?,
                Some(order) = next(orders.as_mut()) => self.obey(order, &guest),
                step = self.stopping.due(), if outcome.is_none() => match step {
                    Step::Kill => self.signal(SignalNumber::KILL, &guest),
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
                done = outputs.stdout.done(), if !told[0] && !filled => {
                    told[0] = true;
                    closed(&guest, Port::Stdout, done);
                }
                done = outputs.stderr.done(), if !told[1] && !filled => {
                    told[1] = true;
                    closed(&guest, Port::Stderr, done);
                }
                () = reached(self.deadline) => self.time_out(&guest),
                () = reached(self.resting) => {
                    self.resting = None;
                    (outcome, filled, told) = (None, false, [false; 2]);
                    filling = self.fill(&guest, outputs);
                    self.run_again(&guest);
                }
                Some(()) = self.leaving.1.recv() => self.leave(outputs)?,
                beat = beat(self.heartbeat.as_mut()) => match beat {
                    Beat::Ask(number) => guest.order(ToGuest::Ping(number)),
                    Beat::Lost => self.responds(false),
                },
                Some(report) = next(self.health.as_mut()) => self.judge(report),
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
                filling.await;
                if self.unheard.is_some() {
                    let heard = heard(self.unheard).await;
                    self.settled(heard, &guest)?;
                }
                Ok(status)
            }
            None => Err(self.died(status).await),
        }
    }

    /// Waits for the agent and gives it the plan. All that waits for the guest is in one place,
    /// beside what may happen meanwhile.
    async fn greet(&mut self, key: LinkKey, signals: &mut Signals) -> Result<Guest, VmError> {
        let Some(link) = self.link.take() else {
            return Err(VmError::Violation { what: "the link has been used".into() });
        };
        let capabilities = self.hypervisor.capabilities();
        let pid = self.process.id();
        let id = SessionId(random::<KEY_LEN>()?);
        let plan = self.boot_plan()?;
        let met = Guest::connect(link, key, id, plan);
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

    /// Opens the streams of a run's output, of which only a container has any, and moves all of it.
    fn fill<'b>(&self, guest: &Guest, outputs: &'b Outputs) -> Filling<'b> {
        let opener = guest.opener();
        let Job::Container(container) = &self.plan.job else { return Box::pin(async {}) };
        // A terminal is one stream.
        let has_stderr = container.terminal.is_none();
        let one = async move |port, output: &One, wanted: bool, opener: Opener| {
            if wanted {
                match opener.open(port).await {
                    Ok(stream) => output.fill(stream).await,
                    Err(error) => tracing::debug!(%error, ?port, "no stream for the output"),
                }
            }
        };
        Box::pin(async move {
            tokio::join!(
                one(Port::Stdout, &outputs.stdout, true, opener.clone()),
                one(Port::Stderr, &outputs.stderr, has_stderr, opener)
            );
        })
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
                    self.begin(guest)?;
                    // One stream serves all runs.
                    if self.plan.input == Input::Inherited && !self.fed {
                        self.fed = true;
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
            ToHost::Ended(Outcome::Failed(failure)) => {
                return Err(VmError::Guest { kind: failure.kind, message: sanitize(&failure.message) });
            }
        }
        Ok(None)
    }

    /// The container runs: who started it in the background hears of it first.
    fn begin(&mut self, guest: &Guest) -> Result<(), VmError> {
        self.started = true;
        if self.restarts.is_first() {
            self.unheard = self.plan.starter.parent();
        }
        // Of what its parent knows as started something is left, whatever comes.
        self.record(|state| state.started = Some(Timestamp::now()));
        match self.unheard {
            Some(parent) => {
                crate::failpoint::reach("start-recorded");
                parent.announce(self.claim.state().id.as_str());
                crate::failpoint::reach("announced");
                Ok(())
            }
            None => self.settled(true, guest),
        }
    }

    /// Whoever started it has heard of it, or does not want it any more.
    fn settled(&mut self, heard: bool, guest: &Guest) -> Result<(), VmError> {
        if !heard {
            self.record(|state| state.started = None);
            return Err(VmError::Interrupted { signal: SignalNumber::TERM.number() });
        }
        if let Some(parent) = self.unheard.take() {
            crate::failpoint::reach("heard");
            parent.release().map_err(|source| VmError::Host { what: "leave the parent", source })?;
            crate::failpoint::reach("released");
        }
        let unchecked = self.plan.health.is_none();
        self.record(|state| {
            // It may have ended meanwhile.
            if state.status == Status::Starting {
                state.status = Status::Running;
                if unchecked {
                    state.health_status = HealthStatus::Healthy;
                }
            }
        });
        if self.claim.state().status == Status::Running {
            self.look_after(guest);
        }
        self.restarts.began();
        crate::failpoint::reach("running-recorded");
        Ok(())
    }

    /// What accompanies a run.
    fn look_after(&mut self, guest: &Guest) {
        self.deadline = self.plan.timeout.map(|timeout| Instant::now() + timeout);
        self.heartbeat.get_or_insert_with(Heartbeat::start);
        if let Some(check) = &self.plan.health {
            let (reports, reported) = mpsc::channel(1);
            self.health = Some(reported);
            self.checking.spawn(health::watch(check.clone(), guest.opener(), reports));
        }
    }

    /// A run has ended, and what accompanied it.
    fn rest(&mut self) {
        self.started = false;
        self.deadline = None;
        self.timed_out = false;
        self.health = None;
        self.checking.abort_all();
        self.stopping = Stopping::default();
    }

    /// Whether a container that has ended with this status is to run again.
    fn rests(&mut self, status: u8) -> bool {
        if self.resting.is_some() {
            return !self.restarts.is_over();
        }
        if !matches!(self.plan.job, Job::Container(_)) || self.claim.state().started.is_none() {
            return false;
        }
        let pause = self.restarts.after(status != 0, self.claim.state());
        self.resting = pause.map(|pause| Instant::now() + pause);
        self.resting.is_some()
    }

    fn run_again(&mut self, guest: &Guest) {
        self.record(|state| {
            state.status = Status::Starting;
            state.health_status = HealthStatus::Starting;
            state.exit_code = None;
            state.restarts += 1;
        });
        guest.order(ToGuest::Restart);
    }

    /// The container has run for too long.
    fn time_out(&mut self, guest: &Guest) {
        self.deadline = None;
        self.timed_out = true;
        tracing::warn!("the container ran longer than it may, and is killed");
        guest.order(ToGuest::Signal(SignalNumber::KILL.number()));
        self.stopping.killed();
    }

    /// The guest answers, or does not any more.
    fn responds(&mut self, responding: bool) {
        if !responding {
            tracing::warn!("the guest does not answer");
        }
        self.record(|state| state.responding = responding);
    }

    /// Takes in a health check.
    fn judge(&mut self, report: Report) {
        if report.status != self.claim.state().health_status {
            tracing::debug!(target: "health", status = %report.status, output = report.result.output, "it changed");
        }
        self.record(|state| {
            state.health_status = report.status;
            state.health_log.push(report.result);
            let first = state.health_log.len().saturating_sub(HEALTH_LOG);
            state.health_log.drain(..first);
        });
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
        let refused = |why: &str| Reply::Refused(why.to_owned());
        let runs = self.started || self.resting.is_some();
        let reply = match order.action {
            Action::Rename(name) => match self.claim.rename(&name) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Refused(format!("{:#}", anyhow::Error::from(error))),
            },
            _ if !runs => refused("its container does not run yet"),
            Action::Signal(_) if !self.started => refused("its container is between two runs"),
            Action::Signal(signal) => {
                if signal == SignalNumber::KILL || signal == self.plan.stop_signal {
                    self.restarts.end();
                }
                self.signal(signal, guest);
                Reply::Done
            }
            Action::Stop(grace) => {
                crate::failpoint::reach("stop-ordered");
                self.restarts.end();
                self.ask_to_end(grace, guest);
                Reply::Done
            }
            // Answered when it runs.
            Action::Restart(grace) => {
                self.restarts.ask(order.reply);
                self.ask_to_end(grace, guest);
                self.resting = self.resting.map(|_| Instant::now());
                return;
            }
        };
        // Who asked may be gone.
        drop(order.reply.send(reply));
    }

    fn ask_to_end(&mut self, grace: Duration, guest: &Guest) {
        if self.started {
            guest.order(ToGuest::Signal(self.plan.stop_signal.number()));
            self.stopping.asked(grace);
        }
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
        let (opener, leaving) = (guest.opener(), self.leaving.0.clone());
        let can_leave = self.terminal.is_some() && matches!(self.plan.starter, Starter::Front(_));
        let keys = can_leave.then(|| self.plan.detach_keys.clone());
        tokio::spawn(async move {
            match opener.open(Port::Stdin).await {
                Ok(stream) => match io::stdin().as_fd().try_clone_to_owned() {
                    Ok(stdin) => {
                        if input::copy(stream, stdin, keys).await == End::Detached
                            && leaving.send(()).await.is_err()
                        {
                            tracing::debug!("there is nothing to leave any more");
                        }
                    }
                    Err(error) => tracing::warn!(%error, "standard input is not forwarded"),
                },
                Err(error) => tracing::debug!(%error, "no stream for the input"),
            }
        });
    }

    /// The user leaves: the VM goes on in the background, as one that was begun there.
    fn leave(&mut self, outputs: &Outputs) -> Result<(), VmError> {
        let Starter::Front(front) = &self.plan.starter else { return Ok(()) };
        self.terminal = None;
        outputs.leave();
        let remove = !self.plan.kept;
        self.record(|state| {
            state.detached = true;
            state.remove = remove;
        });
        front.leave().map_err(|source| VmError::Host { what: "leave the terminal", source })
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
            return VmError::Panicked { reason, console, started: self.claim.state().started.is_some() };
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
