//! Whether and when a container that has ended runs again.

use std::time::Duration;

use tokio::{sync::oneshot, time::Instant};

use super::{VmError, control::Reply};
use crate::{backoff::Backoff, state::RestartPolicy};

/// The restarts of a VM.
#[derive(Debug)]
pub(super) struct Restarts {
    policy: RestartPolicy,
    /// Between the end of a run and the next.
    backoff: Backoff,
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
        Self { policy, backoff: Backoff::new(), began: None, ended: false, asked: Vec::new(), tried: false }
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

    /// The container has ended, after so many restarts: how long until it runs again, if it does.
    pub(super) fn after(&mut self, failed: bool, restarts: u32) -> Option<Duration> {
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
        let lasted = self.began.map(|began| began.elapsed());
        self.policy.applies(failed, restarts).then(|| self.backoff.pause(lasted))
    }

    /// The machine died under a container that had begun: the same question.
    pub(super) fn after_death(&mut self, error: &VmError, restarts: u32) -> Option<Duration> {
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
        if of_the_vm { self.after(true, restarts) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_that_was_asked_for_is_tried_once() {
        let mut restarts = Restarts::new(RestartPolicy::No);
        restarts.began();
        let (reply, mut told) = oneshot::channel();
        restarts.ask(reply);
        assert_eq!(restarts.after(false, 0), Some(Duration::ZERO));
        assert!(told.try_recv().is_err(), "it has not begun yet");
        // It ends before it has begun.
        assert_eq!(restarts.after(true, 0), None);
        assert!(matches!(told.try_recv(), Ok(Reply::Refused(_))));
        // The next one who asks is tried for as well.
        let (reply, mut told) = oneshot::channel();
        restarts.ask(reply);
        assert_eq!(restarts.after(true, 0), Some(Duration::ZERO));
        restarts.began();
        assert!(matches!(told.try_recv(), Ok(Reply::Done)));
        assert_eq!(restarts.after(true, 0), None);
    }

    #[test]
    fn a_user_ends_what_always_runs() {
        let mut restarts = Restarts::new(RestartPolicy::Always);
        for pause in [100, 200] {
            restarts.began();
            assert_eq!(restarts.after(true, 0), Some(Duration::from_millis(pause)));
        }
        restarts.end();
        assert_eq!(restarts.after(true, 0), None);
    }
}
