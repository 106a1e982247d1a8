//! How long a registry may take, and how often it is asked again.

use std::time::Duration;

use super::RegistryError;

const ATTEMPTS_TO_CONNECT: u32 = 3;

/// How long a registry may take, and how often it is asked again.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection to stand.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub silence: Duration,
    /// How often something is tried without any progress between.
    pub attempts: u32,
    /// Before the second attempt; doubled before each further one.
    pub first_pause: Duration,
    /// The longest that a registry may ask us to wait.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            attempts: 5,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// Failures of one thing since there was progress.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    patience: &'a Patience,
    failures: u32,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(patience: &'a Patience) -> Self {
        Self { patience, failures: 0 }
    }

    /// There was progress: all attempts may be made again.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure itself, where another attempt would not help or there were enough.
    pub(super) async fn after(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.failures += 1;
        let Some(pause) = self.pause(&error) else { return Err(error) };
        tracing::debug!(%error, ?pause, failures = self.failures, "asking again");
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause(&self, error: &RegistryError) -> Option<Duration> {
        // Who does not answer at all mostly never will.
        let attempts = match error {
            RegistryError::Unreachable { .. } => self.patience.attempts.min(ATTEMPTS_TO_CONNECT),
            _ => self.patience.attempts,
        };
        if !error.may_pass() || self.failures >= attempts {
            return None;
        }
        let usual = self.patience.first_pause * 2u32.saturating_pow(self.failures - 1);
        let asked = error.retry_after().unwrap_or_default();
        (asked <= self.patience.longest_pause).then(|| usual.min(self.patience.longest_pause).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end() {
        let patience = Patience::default();
        let mut attempts = Attempts::new(&patience);
        let busy = |retry_after| RegistryError::TooMany { registry: "r.example".into(), retry_after };
        let pauses: Vec<_> = (1..=5)
            .map(|failures| {
                attempts.failures = failures;
                attempts.pause(&busy(None)).map(|pause| pause.as_millis())
            })
            .collect();
        assert_eq!(pauses, [Some(500), Some(1000), Some(2000), Some(4000), None]);
        attempts.failures = 1;
        let asked = |seconds| attempts.pause(&busy(Some(Duration::from_secs(seconds))));
        assert_eq!(asked(7), Some(Duration::from_secs(7)));
        assert_eq!(asked(0), Some(Duration::from_millis(500)));
        assert_eq!(asked(61), None, "the user would not wait for it either");
    }
}
