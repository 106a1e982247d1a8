//! Runs of the container, one or several, and what accompanies them.

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
};

use fcvm_proto::{Job, Port, ToGuest};
use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};

use super::Attempt;
use crate::{
    health::{self, Report},
    output::RawMode,
    process::SignalNumber,
    state::{HEALTH_LOG, HealthStatus, Status},
    vm::{
        VmError,
        feeding::feed,
        guest::Guest,
        heartbeat::Heartbeat,
        input::End,
        outputs::Outputs,
        run::{Input, Starter},
        stopping::Stopping,
    },
};

impl Attempt<'_> {
    /// The container runs: who started it in the background hears of it first.
    pub(super) fn begin(&mut self, guest: &Guest) -> Result<(), VmError> {
        self.started = true;
        if self.restarts.is_first() {
            self.unheard = self.plan.starter.parent();
        }
        // Of what its parent knows as started something is left, whatever comes.
        self.record(|state| state.started = Some(Timestamp::now()));
        match self.unheard {
            Some(parent) => {
                crate::failpoint::reach("start-recorded");
                if self.plan.tell_timings {
                    // Theirs and ours until they have heard.
                    writeln!(io::stderr(), "{}", self.timings).ok();
                }
                parent.announce(self.claim.state().id.as_str());
                crate::failpoint::reach("announced");
                Ok(())
            }
            None => self.settled(true, guest),
        }
    }

    /// Whoever started it has heard of it, or does not want it any more.
    pub(super) fn settled(&mut self, heard: bool, guest: &Guest) -> Result<(), VmError> {
        if !heard {
            self.record(|state| state.started = None);
            return Err(VmError::Interrupted { signal: SignalNumber::TERM.number() });
        }
        let parent = self.unheard.take();
        if let Some(parent) = parent {
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
        if let Some(parent) = parent {
            parent.dismiss();
        }
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
    pub(super) fn rest(&mut self) {
        self.started = false;
        self.deadline = None;
        self.timed_out = false;
        self.health = None;
        self.checking.abort_all();
        self.stopping = Stopping::default();
    }

    /// Whether a container that has ended with this status is to run again.
    pub(super) fn rests(&mut self, status: u8) -> bool {
        if self.resting.is_some() {
            return !self.restarts.is_over();
        }
        if !matches!(self.plan.job, Job::Container(_)) || self.claim.state().started.is_none() {
            return false;
        }
        let pause = self.restarts.after(status != 0, self.claim.state().restarts);
        self.resting = pause.map(|pause| Instant::now() + pause);
        self.resting.is_some()
    }

    pub(super) fn run_again(&mut self, guest: &Guest) {
        self.record(|state| {
            state.status = Status::Starting;
            state.health_status = HealthStatus::Starting;
            state.exit_code = None;
            state.restarts += 1;
        });
        guest.order(ToGuest::Restart);
    }

    /// The container has run for too long.
    pub(super) fn time_out(&mut self, guest: &Guest) {
        self.deadline = None;
        self.timed_out = true;
        tracing::warn!("the container ran longer than it may, and is killed");
        guest.order(ToGuest::Signal(SignalNumber::KILL.number()));
        self.stopping.killed();
    }

    /// The guest answers, or does not any more.
    pub(super) fn responds(&mut self, responding: bool) {
        if !responding {
            tracing::warn!("the guest does not answer");
        }
        self.record(|state| state.responding = responding);
    }

    /// Takes in a health check.
    pub(super) fn judge(&mut self, report: Report) {
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

    /// Brings the container our input, from now on. Not before it runs: input that a failed boot took would be
    /// lost for the next, and Ctrl-C ends a boot.
    pub(super) fn forward_input(&mut self, guest: &Guest) -> Result<(), VmError> {
        // One task serves all runs, in all sessions.
        if self.plan.input != Input::Inherited || self.input.is_some() {
            return Ok(());
        }
        if self.plan.has_terminal() {
            let failed = |source| VmError::Host { what: "set up the terminal", source };
            self.terminal = RawMode::set().map_err(failed)?;
        }
        let leaving = self.leaving.0.clone();
        let can_leave = self.terminal.is_some() && matches!(self.plan.starter, Starter::Front(_));
        let keys = can_leave.then(|| self.plan.detach_keys.clone());
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let stdin = stdin.map_err(|source| VmError::Host { what: "read standard input", source })?;
        let (streams, coming) = mpsc::channel(1);
        self.input = Some(streams);
        tokio::spawn(async move {
            if feed(coming, stdin, keys).await == End::Detached && leaving.send(()).await.is_err() {
                tracing::debug!("there is nothing to leave any more");
            }
        });
        self.open_input(guest);
        Ok(())
    }

    /// Opens a stream for our input, in place of the one before.
    pub(super) fn open_input(&self, guest: &Guest) {
        let Some(streams) = self.input.clone() else { return };
        let opener = guest.opener();
        tokio::spawn(async move {
            match opener.open(Port::Stdin).await {
                // Nobody takes it where the user has left.
                Ok(stream) => drop(streams.send(stream).await),
                Err(error) => tracing::debug!(%error, "no stream for the input"),
            }
        });
    }

    /// The user leaves: the VM goes on in the background, as one that was begun there.
    pub(super) fn leave(&mut self, outputs: &Outputs) -> Result<(), VmError> {
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
}
