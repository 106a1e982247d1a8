//! What checks mean, taken together: pure.

use crate::state::HealthStatus;

/// What is known of a container's health.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    status: HealthStatus,
    /// In a row.
    failures: u32,
    retries: u32,
}

impl Verdict {
    pub(super) fn new(retries: u32) -> Self {
        Self { status: HealthStatus::Starting, failures: 0, retries }
    }

    pub(super) fn status(&self) -> HealthStatus {
        self.status
    }

    /// Takes in a check; a failure may not count.
    pub(super) fn judge(&mut self, success: bool, counts: bool) -> HealthStatus {
        if success {
            self.failures = 0;
            self.status = HealthStatus::Healthy;
        } else if counts || self.status != HealthStatus::Starting {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
        self.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use HealthStatus::{Healthy, Starting, Unhealthy};

    #[test]
    fn failures_count_in_a_row_and_after_the_start() {
        let mut verdict = Verdict::new(2);
        for (success, counts, status) in [
            (false, false, Starting),
            (false, false, Starting),
            (false, true, Starting),
            (true, true, Healthy),
            // Once it was healthy every failure counts.
            (false, false, Healthy),
            (true, true, Healthy),
            (false, true, Healthy),
            (false, true, Unhealthy),
            (false, true, Unhealthy),
            (true, true, Healthy),
        ] {
            assert_eq!(verdict.judge(success, counts), status);
        }
        let mut verdict = Verdict::new(1);
        assert_eq!(verdict.judge(false, true), Unhealthy);
    }
}
