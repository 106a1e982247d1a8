//! Pauses before what has ended is tried once more.

use std::time::Duration;

/// The first pause. Doubled each time, as Docker's.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// What lasted so long was well: the next pause is the first.
const WELL: Duration = Duration::from_secs(10);

/// The pauses of one thing.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(FIRST)
    }

    /// The next pause, after so long a life; `None` where there was none.
    pub(crate) fn pause(&mut self, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted >= WELL) {
            self.0 = FIRST;
        }
        let pause = self.0;
        self.0 = (pause * 2).min(LONGEST);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_a_life_was_long() {
        let mut backoff = Backoff::new();
        for pause in [100, 200, 400] {
            assert_eq!(backoff.pause(Some(WELL / 2)), Duration::from_millis(pause));
        }
        assert_eq!(backoff.pause(None), FIRST * 8);
        assert_eq!(backoff.pause(Some(WELL)), FIRST);
        for _ in 0..20 {
            assert!(backoff.pause(None) <= LONGEST);
        }
        assert_eq!(backoff.pause(None), LONGEST);
    }
}
