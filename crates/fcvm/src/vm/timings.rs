//! Where the time of a run went.

use std::{
    fmt,
    time::{Duration, Instant},
};

use fcvm_proto::{Hello, Stage};

/// Columns of a stage's name.
const WIDTH: usize = 12;

/// Moments of a run, on the host's clock; the guest's are converted.
#[derive(Debug, Clone)]
pub struct Timings {
    begun: Instant,
    marks: Vec<(&'static str, Instant)>,
    /// When the guest's kernel started.
    kernel_started: Option<Instant>,
    first_output: Option<Instant>,
}

impl Timings {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { begun: Instant::now(), marks: Vec::new(), kernel_started: None, first_output: None }
    }

    /// What ends now, in a word.
    pub fn mark(&mut self, what: &'static str) {
        self.marks.push((what, Instant::now()));
    }

    /// The same, of a moment that has passed.
    pub(super) fn mark_at(&mut self, what: &'static str, at: Instant) {
        self.marks.push((what, at));
    }

    /// A boot begins again: what the failed one took counts as one piece.
    pub fn retry(&mut self) {
        self.marks.retain(|(what, _)| matches!(*what, "setup" | "image"));
        self.mark("failed boot");
    }

    pub(super) fn launched(&mut self) {
        self.mark("fcvm");
    }

    pub(super) fn hello(&mut self, hello: &Hello) {
        let now = Instant::now();
        let started = now.checked_sub(Duration::from_nanos(hello.said)).unwrap_or(now);
        self.kernel_started = Some(started);
        self.guest("hypervisor", 0);
        self.guest("kernel", hello.agent_started);
    }

    pub(super) fn reached(&mut self, stage: Stage, nanos: u64) {
        self.guest(
            match stage {
                Stage::Prepared => "agent",
                Stage::ContainerStarted => "podman",
                Stage::ContainerEnded => "container",
                Stage::Waits => "container made",
            },
            nanos,
        );
    }

    /// A guest's moment, once, never before the last one nor after now: the guest may say anything.
    fn guest(&mut self, what: &'static str, nanos: u64) {
        if self.marks.iter().any(|(marked, _)| *marked == what) {
            return;
        }
        let now = Instant::now();
        let earliest = self.marks.last().map_or(self.begun, |(_, at)| *at);
        let said = self.kernel_started.and_then(|start| start.checked_add(Duration::from_nanos(nanos)));
        let at = said.unwrap_or(now).min(now).max(earliest.min(now));
        self.marks.push((what, at));
    }

    /// Since its start.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn first_output(&mut self, at: Option<Instant>) {
        self.first_output = at;
    }

    /// From the start of the command to the first byte of output.
    #[must_use]
    pub fn to_first_output(&self) -> Option<Duration> {
        Some(self.first_output?.saturating_duration_since(self.begun))
    }
}

impl fmt::Display for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<WIDTH$} {:>8} {:>8}", "stage", "ms", "at ms")?;
        let mut last = self.begun;
        for &(what, at) in &self.marks {
            let (took, since) =
                (at.saturating_duration_since(last), at.saturating_duration_since(self.begun));
            write!(f, "\n{what:<WIDTH$} {:>8} {:>8}", took.as_millis(), since.as_millis())?;
            last = last.max(at);
        }
        match self.to_first_output() {
            Some(first) => write!(f, "\n{:<WIDTH$} {:>8} {:>8}", "first output", "", first.as_millis()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(agent_started: u64, said: u64) -> Hello {
        Hello {
            protocol: 1,
            build: String::new(),
            boot_id: String::new(),
            session: [0; 16],
            kernel: String::new(),
            agent_started,
            said,
        }
    }

    #[test]
    fn a_guest_cannot_make_time_run_backwards_or_the_table_grow() {
        let mut timings = Timings::start();
        timings.launched();
        timings.hello(&hello(u64::MAX, u64::MAX));
        for nanos in [u64::MAX, 0, 7] {
            timings.reached(Stage::Prepared, nanos);
            timings.reached(Stage::ContainerStarted, nanos);
        }
        timings.mark("teardown");
        let mut last = timings.begun;
        for (what, at) in &timings.marks {
            assert!(*at >= last, "{what}");
            last = last.max(*at);
        }
        assert_eq!(timings.to_string().lines().count(), 7, "{timings}");
    }
}
