//! What a process uses, measured.

use std::time::{Duration, Instant};

use procfs::{Current as _, process::Process};

use crate::process::Owner;

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// CPU time so far.
    pub cpu: Duration,
    /// Proportional set size in bytes: shared pages count in parts. `None` where the kernel does not tell.
    pub pss: Option<u64>,
}

/// All that `/proc` tells of what a process uses, at one moment. `None` is what the kernel does not tell
/// this user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it was measured.
    pub at: Instant,
    /// How long the process lived until then.
    pub age: Duration,
    /// CPU time until then, of all threads.
    pub cpu: Duration,
    /// Threads.
    pub threads: u64,
    /// Memory, in bytes.
    pub memory: Option<Memory>,
    /// Bytes fetched from storage and sent there.
    pub disk: Option<Disk>,
}

/// Memory of a process, in bytes (`/proc/PID/smaps_rollup`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident: all pages that are there.
    pub resident: u64,
    /// Pages that others have too count in parts.
    pub proportional: u64,
    /// What nobody else has: what its end would free.
    pub private: u64,
}

/// Storage traffic of a process, in bytes (`/proc/PID/io`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Fetched from storage.
    pub read: u64,
    /// Sent to storage.
    pub written: u64,
}

impl Usage {
    /// What a process uses now; `None` where it is gone.
    #[must_use]
    pub fn of(owner: &Owner) -> Option<Self> {
        let process = Process::new(owner.pid).ok()?;
        let stat = process.stat().ok().filter(|stat| stat.starttime == owner.start_time)?;
        let pss = memory(&process).map(|memory| memory.proportional);
        Some(Self { cpu: ticks(stat.utime + stat.stime), pss })
    }
}

impl Sample {
    /// What a process uses now; `None` where it is gone.
    #[must_use]
    pub fn of(owner: &Owner) -> Option<Self> {
        let process = Process::new(owner.pid).ok()?;
        let memory = memory(&process);
        let disk = process.io().ok().map(|io| Disk { read: io.read_bytes, written: io.write_bytes });
        let uptime = procfs::Uptime::current().ok()?;
        // Last: what was read before is that very process's only where it is there still.
        let stat = process.stat().ok().filter(|stat| stat.starttime == owner.start_time)?;
        Some(Self {
            at: Instant::now(),
            age: uptime.uptime_duration().saturating_sub(ticks(stat.starttime)),
            cpu: ticks(stat.utime + stat.stime),
            threads: u64::try_from(stat.num_threads).unwrap_or(0),
            memory,
            disk,
        })
    }

    /// CPU time in percent of one CPU, since an earlier sample or, without one, since the start.
    #[must_use]
    pub fn cpu_percent(&self, earlier: Option<&Self>) -> f64 {
        let (used, time) = match earlier {
            Some(earlier) => {
                (self.cpu.saturating_sub(earlier.cpu), self.at.saturating_duration_since(earlier.at))
            }
            None => (self.cpu, self.age),
        };
        if time.is_zero() { 0.0 } else { used.as_secs_f64() / time.as_secs_f64() * 100.0 }
    }
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count.saturating_mul(1000) / procfs::ticks_per_second())
}

fn memory(process: &Process) -> Option<Memory> {
    let rollup = process.smaps_rollup().ok()?;
    let mut memory = Memory::default();
    for (name, bytes) in rollup.memory_map_rollup.iter().flat_map(|map| &map.extension.map) {
        match name.as_str() {
            "Rss" => memory.resident += bytes,
            "Pss" => memory.proportional += bytes,
            "Private_Clean" | "Private_Dirty" | "Private_Hugetlb" => memory.private += bytes,
            _ => {}
        }
    }
    Some(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, age: u64, cpu: u64) -> Sample {
        let [age, cpu] = [age, cpu].map(Duration::from_millis);
        Sample { at, age, cpu, threads: 1, memory: None, disk: None }
    }

    #[test]
    fn cpu_is_in_percent_of_one_cpu() {
        let now = Instant::now();
        let first = sample(now, 10_000, 2500);
        let later = sample(now + Duration::from_secs(2), 12_000, 5500);
        for (sample, earlier, percent) in [
            (&first, None, 25.0),
            (&later, Some(&first), 150.0),
            // What cannot be is no number that cannot be printed.
            (&first, Some(&first), 0.0),
            (&first, Some(&later), 0.0),
            (&sample(now, 0, 0), None, 0.0),
        ] {
            assert!((sample.cpu_percent(earlier) - percent).abs() < 1e-9, "{sample:?} {earlier:?}");
        }
    }

    #[test]
    fn this_process_is_measured_and_one_of_another_time_is_not() {
        let mut owner = Owner::current().unwrap();
        let sample = Sample::of(&owner).unwrap();
        let memory = sample.memory.unwrap();
        assert!(memory.resident >= memory.proportional && memory.proportional >= memory.private);
        assert!(memory.private > 0 && sample.threads >= 1 && sample.disk.is_some());
        owner.start_time += 1;
        assert!(Sample::of(&owner).is_none() && Usage::of(&owner).is_none());
    }
}
