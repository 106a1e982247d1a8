//! Progress of long work.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Printer;

/// What a progress counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, of so many.
    Bytes(u64),
    /// Nothing that can be counted: a spinner.
    Unknown,
}

/// One piece of work: `start`, `add`, `done`. On a terminal a bar, otherwise a
/// line at the start and one at the end. Dropped without `done`, it disappears.
#[derive(Debug)]
pub struct Progress {
    printer: Printer,
    label: String,
    bar: ProgressBar,
    started: Instant,
}

impl Progress {
    pub(super) fn new(printer: Printer, label: String, terminal: bool) -> Self {
        let bar = if terminal {
            let bar = printer.bars().add(ProgressBar::new_spinner());
            bar.set_style(style("{spinner} {msg} {elapsed}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.set_message(label.clone());
            bar
        } else {
            printer.note(format_args!("{label} ..."));
            ProgressBar::hidden()
        };
        Self { printer, label, bar, started: Instant::now() }
    }

    /// Says how much work there is.
    pub fn set_unit(&self, unit: Unit) {
        match unit {
            Unit::Bytes(total) => {
                self.bar.set_length(total);
                self.bar.set_style(style("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
            }
            Unit::Unknown => self.bar.set_style(style("{spinner} {msg} {elapsed}")),
        }
    }

    /// Counts `amount` more units as done.
    pub fn add(&self, amount: u64) {
        self.bar.inc(amount);
    }

    /// Shows what is being done right now.
    pub fn step(&self, what: &str) {
        self.bar.set_message(format!("{}: {}", self.label, super::sanitize(what)));
    }

    /// The work is done; `result` says what came of it.
    pub fn done(self, result: &str) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        self.printer.note(format_args!("{}: {result} ({seconds:.1} s)", self.label));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
