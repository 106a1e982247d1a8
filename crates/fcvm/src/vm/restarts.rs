//! Whether and when a container that has ended runs again.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use super::{VmError, control::Reply};
use crate::state::{RestartPolicy, VmState};

/// Between the end of a run and the next, at first. Doubled each time, as Docker's.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A container that ran so long was well: the next pause is the first.
const WELL: Duration = Duration::from_secs(10);

/// The restarts of a VM.
#[derive(Debug)]
pub(super) struct Restarts {
    policy: RestartPolicy,
    pause: Duration,
    /// When the container began to run last.
    began: Option<Instant>,
    /// A user ended it: that is the end.
    ended: bool,
    /// Users who asked for one, and wait for it.
    asked: Vec<oneshot::Sender<Reply>>,
    /// Whether it was tried for them.
    tried: bool,
}

impl Restarts {
    pub(super) fn new(policy: RestartPolicy) -> Self {
        Self { policy, pause: FIRST_PAUSE, began: None, ended: false, asked: Vec::new(), tried: false }
    }

    /// Whether the container has not run yet, as far as anybody knows.
    pub(super) fn is_first(&self) -> bool {
        self.began.is_none()
    }

    /// The container runs: who asked for that hears of it.
    pub(super) fn began(&mut self) {
        self.began = Some(Instant::now());
        self.tried = false;
        for asked in self.asked.drain(..) {
            // Who asked may be gone.
            drop(asked.send(Reply::Done));
        }
    }

    /// A user ends the container, and with it the VM.
    pub(super) fn end(&mut self) {
        self.ended = true;
        self.asked.clear();
    }

    /// A user wants it to end and run again.
    pub(super) fn ask(&mut self, reply: oneshot::Sender<Reply>) {
        self.ended = false;
        self.asked.push(reply);
    }

    /// Whether nothing runs again any more.
    pub(super) fn is_over(&self) -> bool {
        self.ended
    }

    /// The container has ended: how long until it runs again, if it does.
    pub(super) fn after(&mut self, failed: bool, state: &VmState) -> Option<Duration> {
        if self.ended {
            return None;
        }
        if !self.asked.is_empty() && !self.tried {
            self.tried = true;
            return Some(Duration::ZERO);
        }
        // It did not begin, and would not the next time.
        for asked in self.asked.drain(..) {
            drop(asked.send(Reply::Refused("its container does not start again: see `fcvm logs`".into())));
        }
        self.tried = false;
        self.policy.applies(failed, state.restarts).then(|| {
            if self.began.is_some_and(|began| began.elapsed() >= WELL) {
                self.pause = FIRST_PAUSE;
            }
            let pause = self.pause;
            self.pause = (pause * 2).min(LONGEST_PAUSE);
            pause
        })
    }

    /// The machine died under a container that had begun: the same question.
    pub(super) fn after_death(&mut self, error: &VmError, state: &VmState) -> Option<Duration> {
        // What is of this host is the same the next time. A guest that is asked to restart its
        // container and does not is ended as by SIGKILL.
        let of_the_vm = match error {
            VmError::Panicked { .. }
            | VmError::Stopped { .. }
            | VmError::HypervisorDied { .. }
            | VmError::NotResponding { .. }
            | VmError::Violation { .. } => true,
            VmError::Interrupted { .. } => !self.asked.is_empty(),
            _ => false,
        };
        if of_the_vm { self.after(true, state) } else { None }
    }
}
