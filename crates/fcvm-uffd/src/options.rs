//! What can be chosen.

use std::{path::PathBuf, time::Duration};

/// How a server serves. [`Options::default`] is what was measured to be good.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many VMs are served at most; each has a thread. Default: 1024.
    pub max_vms: usize,
    /// How long a connection may take to say who it is. Default: 2 seconds.
    pub handshake_timeout: Duration,
    /// Pages of 4096 bytes that are copied together where a guest jumps about: a power of two. Default: 4.
    pub least_window: usize,
    /// The most that are copied together where it goes on from page to page: a power of two. Default: 64.
    pub most_window: usize,
    /// How long a thread looks for the next fault before it sleeps, as long as that leaves a CPU to each such
    /// thread's guest: at most half of the CPUs are used so. Zero: never. Default: 50 microseconds.
    pub eager: Duration,
    /// Whether the first VM's faults are recorded and given to later VMs in advance. Default: no.
    pub recording: Option<RecordingOptions>,
}

/// How the working set is recorded.
#[derive(Debug, Clone)]
pub struct RecordingOptions {
    /// Where it is kept: best beside the memory file.
    pub file: PathBuf,
    /// The first VM's start is over when it had no fault for so long.
    pub quiet: Duration,
}

impl RecordingOptions {
    /// Records into a file, until there was no fault for half a second.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), quiet: Duration::from_millis(500) }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_vms: 1024,
            handshake_timeout: Duration::from_secs(2),
            least_window: 4,
            most_window: 64,
            eager: Duration::from_micros(50),
            recording: None,
        }
    }
}
