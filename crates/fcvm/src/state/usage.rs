//! What a process uses, measured.

use std::time::Duration;

use procfs::process::Process;

use crate::process::Owner;

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// CPU time so far.
    pub cpu: Duration,
    /// Proportional set size in bytes: shared pages count in parts. `None` where the kernel does not tell.
    pub pss: Option<u64>,
}

impl Usage {
    /// What a process uses now; `None` where it is gone.
    #[must_use]
    pub fn of(owner: &Owner) -> Option<Self> {
        let process = Process::new(owner.pid).ok()?;
        let stat = process.stat().ok().filter(|stat| stat.starttime == owner.start_time)?;
        let ticks = stat.utime + stat.stime;
        let pss = process.smaps_rollup().ok().and_then(|rollup| {
            rollup.memory_map_rollup.iter().find_map(|map| map.extension.map.get("Pss").copied())
        });
        Some(Self { cpu: Duration::from_millis(ticks * 1000 / procfs::ticks_per_second()), pss })
    }
}
