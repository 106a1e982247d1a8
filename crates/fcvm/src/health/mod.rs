//! Whether a container is well, asked again and again while it runs.
//!
//! ```text
//!            first success                   `retries` failures in a row
//!  starting --------------> healthy ---------------------------------> unhealthy
//!     |                        ^-------------------- success -------------'
//!     '-- `retries` failures after the start period --------------------->'
//! ```
//! Failures within the start period do not count, nor do those of the first interval: until then the
//! check is made every second, so that a container that is ready is known to be soon. What a guest
//! that does not answer would say is not known: that changes nothing.

mod command;
mod http;
mod verdict;

use std::time::Duration;

use fcvm_link::Opener;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

pub use http::{HttpCheck, ParseUrlError};
use verdict::Verdict;

use crate::{
    image::spec::Healthcheck,
    state::{HealthResult, HealthStatus},
};

/// Between two checks of a container that starts.
const START_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a check's output that are kept, as Podman's.
const MAX_OUTPUT: usize = 500;
/// How long a guest may take beyond a command's time to tell that it has killed it.
const GRACE: Duration = Duration::from_secs(5);

/// A check and its times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is done.
    pub probe: Probe,
    /// Between the end of one and the start of the next.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// How long failures do not count at first.
    pub start_period: Duration,
    /// How many must fail one after the other; not 0.
    pub retries: u32,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Probe {
    /// Runs a command in the container, which is to end with 0.
    Command(Vec<String>),
    /// Sends a request to a port of the guest.
    Http(HttpCheck),
}

impl HealthCheck {
    /// A check with Podman's times.
    #[must_use]
    pub fn new(probe: Probe) -> Self {
        let usual = Duration::from_secs(30);
        Self { probe, interval: usual, timeout: usual, start_period: Duration::ZERO, retries: 3 }
    }

    /// The check of an image; `None` where it has none.
    #[must_use]
    pub fn of_image(config: &Healthcheck) -> Option<Self> {
        let mut check = Self::new(Probe::parse(&config.test)?);
        let given =
            |nanos: i64| u64::try_from(nanos).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos);
        check.interval = given(config.interval).unwrap_or(check.interval);
        check.timeout = given(config.timeout).unwrap_or(check.timeout);
        check.start_period = given(config.start_period).unwrap_or(check.start_period);
        check.retries =
            u32::try_from(config.retries).ok().filter(|retries| *retries > 0).unwrap_or(check.retries);
        Some(check)
    }
}

impl Probe {
    /// A test as images have it: `CMD` and words, or `CMD-SHELL` and a text; `None` for `NONE`.
    #[must_use]
    pub fn parse(test: &[String]) -> Option<Self> {
        let [kind, words @ ..] = test else { return None };
        match kind.as_str() {
            "CMD" if !words.is_empty() => Some(Self::Command(words.to_vec())),
            "CMD-SHELL" if !words.is_empty() => Some(Self::shell(&words.join(" "))),
            _ => None,
        }
    }

    /// A text for the container's shell.
    #[must_use]
    pub fn shell(text: &str) -> Self {
        Self::Command(vec!["/bin/sh".into(), "-c".into(), text.to_owned()])
    }
}

/// A check that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What came of it.
    pub result: HealthResult,
    /// What that means.
    pub status: HealthStatus,
}

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    /// With this status and output.
    Done(u8, String),
    /// The guest does not answer.
    Unknown,
}

/// Checks a container that has just started, for as long as somebody takes the reports.
pub async fn watch(check: HealthCheck, opener: Opener, reports: mpsc::Sender<Report>) {
    let began = Instant::now();
    let free = check.start_period.max(check.interval);
    let mut verdict = Verdict::new(check.retries);
    loop {
        let start = Timestamp::now();
        let outcome = run(&check, &opener).await;
        let in_start = began.elapsed() < free && verdict.status() == HealthStatus::Starting;
        if let Outcome::Done(exit_code, output) = outcome {
            let counts =
                began.elapsed() >= check.start_period && !(in_start && check.interval > START_INTERVAL);
            let status = verdict.judge(exit_code == 0, counts);
            let result = HealthResult { start, end: Timestamp::now(), exit_code, output };
            if reports.send(Report { result, status }).await.is_err() {
                return;
            }
        }
        let starting = in_start && verdict.status() == HealthStatus::Starting;
        sleep(if starting { check.interval.min(START_INTERVAL) } else { check.interval }).await;
    }
}

async fn run(check: &HealthCheck, opener: &Opener) -> Outcome {
    let limit = check.timeout;
    match &check.probe {
        Probe::Command(command) => {
            // The command's own time is counted from its start; this is for a guest that is silent.
            let ended = timeout(limit + GRACE, command::run(command, limit, opener)).await;
            ended.unwrap_or(Outcome::Unknown)
        }
        Probe::Http(request) => request.run(limit, opener).await,
    }
}

/// What took too long, in the words of Podman's log.
fn too_long(limit: Duration) -> Outcome {
    Outcome::Done(1, format!("healthcheck timed out after {}", humantime::format_duration(limit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_images_are_commands() {
        let test = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let command = |words: &[&str]| Some(Probe::Command(test(words)));
        assert_eq!(Probe::parse(&test(&["CMD", "a", "b"])), command(&["a", "b"]));
        assert_eq!(Probe::parse(&test(&["CMD-SHELL", "a | b"])), command(&["/bin/sh", "-c", "a | b"]));
        for none in [&[][..], &["NONE"], &["CMD"], &["x", "y"]] {
            assert_eq!(Probe::parse(&test(none)), None, "{none:?}");
        }
        let config = Healthcheck {
            test: test(&["CMD", "true"]),
            interval: 2_000_000_000,
            retries: -1,
            ..Healthcheck::default()
        };
        let check = HealthCheck::of_image(&config).unwrap();
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (Duration::from_secs(2), Duration::from_secs(30), 3)
        );
    }
}
