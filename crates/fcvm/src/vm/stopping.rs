//! How a container ends that is asked to: its stop signal, then SIGKILL, then the machine.
//!
//! A guest that answers is given two minutes after SIGKILL, one that does not 10 s.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long a guest may take for a container that was killed.
const LAST_GRACE: Duration = Duration::from_secs(10);
/// How much longer one may that answers: it is slow, or has much to write to the host's directories.
const MORE_GRACE: Duration = Duration::from_secs(110);

/// What comes next, and when.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stopping {
    next: Option<(Instant, Step)>,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send the container SIGKILL.
    Kill,
    /// See whether the guest of a killed container still answers.
    Look,
    /// Nothing is to be had from this guest any more: end the machine.
    GiveUp,
}

impl Stopping {
    /// The container was asked to end, and has that long. A later request may shorten that.
    pub(super) fn asked(&mut self, grace: Duration) {
        let at = Instant::now() + grace;
        match self.next {
            Some((_, Step::Look | Step::GiveUp)) => {}
            Some((earlier, Step::Kill)) if earlier <= at => {}
            _ => self.next = Some((at, Step::Kill)),
        }
    }

    /// The container was sent SIGKILL.
    pub(super) fn killed(&mut self) {
        if !matches!(self.next, Some((_, Step::Look | Step::GiveUp))) {
            self.next = Some((Instant::now() + LAST_GRACE, Step::Look));
        }
    }

    /// The guest answers, or does not; its container was killed a while ago.
    pub(super) fn looked(&mut self, answers: bool) {
        self.next = Some((Instant::now() + if answers { MORE_GRACE } else { Duration::ZERO }, Step::GiveUp));
    }

    /// The guest does not answer any more: no more than what any may take is left to it.
    pub(super) fn lost(&mut self) {
        if self.is_overdue() {
            self.end_now();
        }
    }

    /// Whether the guest of a killed container takes longer than most.
    pub(super) fn is_overdue(&self) -> bool {
        matches!(self.next, Some((_, Step::GiveUp)))
    }

    /// Nobody wants anything of the machine any more.
    pub(super) fn end_now(&mut self) {
        self.next = Some((Instant::now(), Step::GiveUp));
    }

    /// Waits until something is to be done. Cancel-safe.
    pub(super) async fn due(&self) -> Step {
        match self.next {
            Some((at, step)) => {
                sleep_until(at).await;
                step
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_left(stopping: Stopping, seconds: f64, step: Step) -> bool {
        let (at, next) = stopping.next.unwrap();
        (at.duration_since(Instant::now()).as_secs_f64() - seconds).abs() < 2.0 && next == step
    }

    #[test]
    fn a_request_may_shorten_the_time_and_nothing_prolongs_it() {
        let mut stopping = Stopping::default();
        stopping.asked(Duration::from_secs(100));
        stopping.asked(Duration::from_secs(20));
        stopping.asked(Duration::from_secs(60));
        assert!(is_left(stopping, 20.0, Step::Kill));
        stopping.killed();
        stopping.asked(Duration::from_secs(100));
        assert!(is_left(stopping, 10.0, Step::Look));
    }

    #[test]
    fn a_guest_has_more_time_while_it_answers() {
        let mut stopping = Stopping::default();
        stopping.killed();
        stopping.lost();
        assert!(!stopping.is_overdue());
        assert!(is_left(stopping, 10.0, Step::Look));
        stopping.looked(true);
        assert!(stopping.is_overdue());
        stopping.killed();
        assert!(is_left(stopping, 110.0, Step::GiveUp));
        stopping.lost();
        assert!(is_left(stopping, 0.0, Step::GiveUp));
        stopping.killed();
        stopping.looked(false);
        assert!(is_left(stopping, 0.0, Step::GiveUp));
    }
}
