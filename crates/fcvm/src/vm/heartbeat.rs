//! Whether the guest answers.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Between an answer and the next question.
const INTERVAL: Duration = Duration::from_secs(5);
/// A guest that has not answered by then is not well, however busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Questions to a guest and its answers.
#[derive(Debug)]
pub(super) struct Heartbeat {
    number: u64,
    waiting: bool,
    at: Instant,
    responding: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beat {
    /// Ask with this number.
    Ask(u64),
    /// The guest did not answer in time.
    Lost,
}

impl Heartbeat {
    /// From now on.
    pub(super) fn start() -> Self {
        Self { number: 0, waiting: false, at: Instant::now() + INTERVAL, responding: true }
    }

    /// Waits until something is to be done. Cancel-safe: nothing changes before that.
    pub(super) async fn due(&mut self) -> Beat {
        sleep_until(self.at).await;
        self.beat(Instant::now())
    }

    fn beat(&mut self, now: Instant) -> Beat {
        let lost = self.waiting && self.responding;
        self.responding &= !self.waiting;
        // One that comes back may have lost the question.
        self.number += 1;
        self.at = now + PATIENCE;
        if lost {
            return Beat::Lost;
        }
        self.waiting = true;
        Beat::Ask(self.number)
    }

    /// Whether the guest has answered in time, so far.
    pub(super) fn responds(&self) -> bool {
        self.responding
    }

    /// The guest answered; whether it had not before.
    pub(super) fn answered(&mut self, number: u64) -> bool {
        if number == 0 || number > self.number {
            return false;
        }
        self.waiting = false;
        self.at = Instant::now() + INTERVAL;
        !std::mem::replace(&mut self.responding, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_silent_is_noticed_once_and_asked_on() {
        let mut heartbeat = Heartbeat::start();
        let now = Instant::now();
        assert_eq!(heartbeat.beat(now), Beat::Ask(1));
        assert_eq!(heartbeat.at, now + PATIENCE);
        assert!(!heartbeat.answered(1) && !heartbeat.answered(0) && !heartbeat.answered(9));
        assert!(heartbeat.at > now && heartbeat.at < now + PATIENCE);
        assert_eq!(heartbeat.beat(now), Beat::Ask(2));
        assert_eq!(heartbeat.beat(now), Beat::Lost);
        assert!(matches!(heartbeat.beat(now), Beat::Ask(_)));
        assert!(matches!(heartbeat.beat(now), Beat::Ask(_)));
        // Also a late answer is one.
        assert!(heartbeat.answered(2));
        assert!(matches!(heartbeat.beat(now), Beat::Ask(_)));
        assert_eq!(heartbeat.beat(now), Beat::Lost);
    }
}
