//! How a container ends that is asked to: its stop signal, then SIGKILL, then the machine.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long a guest may take for a container that was killed.
const LAST_GRACE: Duration = Duration::from_secs(10);

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
    /// Nothing is to be had from this guest any more: end the machine.
    GiveUp,
}

impl Stopping {
    /// The container was asked to end, and has that long. A later request may shorten that.
    pub(super) fn asked(&mut self, grace: Duration) {
        let at = Instant::now() + grace;
        match self.next {
            Some((_, Step::GiveUp)) => {}
            Some((earlier, Step::Kill)) if earlier <= at => {}
            _ => self.next = Some((at, Step::Kill)),
        }
    }

    /// The container was sent SIGKILL.
    pub(super) fn killed(&mut self) {
        if !matches!(self.next, Some((_, Step::GiveUp))) {
            self.next = Some((Instant::now() + LAST_GRACE, Step::GiveUp));
        }
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
        assert!(is_left(stopping, 10.0, Step::GiveUp));
    }
}
