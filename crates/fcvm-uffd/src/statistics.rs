//! Counts for each VM, to be read at any time.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::VmId;

/// Below 16 ns a bucket each; above, eight for each power of two, so that a bucket's limits are 12.5 % apart.
const BUCKETS: usize = 16 + 36 * 8;

/// Counts that one thread writes and others read.
#[derive(Debug)]
pub(crate) struct Counts {
    since: Instant,
    pub(crate) faults: AtomicU64,
    pub(crate) pages_copied: AtomicU64,
    pub(crate) pages_zeroed: AtomicU64,
    pub(crate) bytes_prefetched: AtomicU64,
    pub(crate) prefetch_late: AtomicU64,
    pub(crate) pages_removed: AtomicU64,
    pub(crate) present: AtomicU64,
    pub(crate) deferred: AtomicU64,
    /// Nanoseconds after `since`.
    last_fault: AtomicU64,
    least: AtomicU64,
    most: AtomicU64,
    buckets: [AtomicU64; BUCKETS],
}

/// What was done for a VM so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Which VM.
    pub vm: VmId,
    /// Its process, where it is known.
    pub pid: Option<i32>,
    /// Milliseconds since it came.
    pub age_ms: u64,
    /// Faults: how often one of its threads waited for a page.
    pub faults: u64,
    /// Pages copied from the memory file, for faults and their neighbours and in advance.
    pub pages_copied: u64,
    /// Pages that were given as zeros.
    pub pages_zeroed: u64,
    /// Bytes given in advance, from the working set. Whether the VM ever looked at them cannot be known.
    pub bytes_prefetched: u64,
    /// Faults on pages of the working set that came before these were given in advance.
    pub prefetch_late: u64,
    /// Pages that the VM gave back, and which are zeros since.
    pub pages_removed: u64,
    /// Pages that were there already when they were to be given.
    pub pages_present: u64,
    /// Faults that had to wait for pages to be given back.
    pub deferred: u64,
    /// Milliseconds since the last fault, if there was one.
    pub last_fault_ms_ago: Option<u64>,
    /// How long faults took.
    pub latency: Latency,
}

/// How long faults took in nanoseconds, from when they were read until they were served, with those that were
/// served before them in the same turn; exact to 12.5 %.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Latency {
    /// The least.
    pub min_ns: u64,
    /// Half of them took at most this.
    pub p50_ns: u64,
    /// All but one in a hundred took at most this.
    pub p99_ns: u64,
    /// The most.
    pub max_ns: u64,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            faults: AtomicU64::new(0),
            pages_copied: AtomicU64::new(0),
            pages_zeroed: AtomicU64::new(0),
            bytes_prefetched: AtomicU64::new(0),
            prefetch_late: AtomicU64::new(0),
            pages_removed: AtomicU64::new(0),
            present: AtomicU64::new(0),
            deferred: AtomicU64::new(0),
            last_fault: AtomicU64::new(0),
            least: AtomicU64::new(u64::MAX),
            most: AtomicU64::new(0),
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// Counts a fault that was read and served then.
    pub(crate) fn fault(&self, read: Instant, served: Instant) {
        let took = nanoseconds(served.saturating_duration_since(read));
        add(&self.faults, 1);
        self.least.fetch_min(took, Relaxed);
        self.most.fetch_max(took, Relaxed);
        self.last_fault.store(nanoseconds(served.saturating_duration_since(self.since)).max(1), Relaxed);
        add(&self.buckets[bucket(took)], 1);
    }

    pub(crate) fn read(&self, vm: VmId, pid: Option<i32>) -> Statistics {
        let age = nanoseconds(self.since.elapsed());
        let last = self.last_fault.load(Relaxed);
        Statistics {
            vm,
            pid,
            age_ms: age / 1_000_000,
            faults: self.faults.load(Relaxed),
            pages_copied: self.pages_copied.load(Relaxed),
            pages_zeroed: self.pages_zeroed.load(Relaxed),
            bytes_prefetched: self.bytes_prefetched.load(Relaxed),
            prefetch_late: self.prefetch_late.load(Relaxed),
            pages_removed: self.pages_removed.load(Relaxed),
            pages_present: self.present.load(Relaxed),
            deferred: self.deferred.load(Relaxed),
            last_fault_ms_ago: (last > 0).then(|| age.saturating_sub(last) / 1_000_000),
            latency: self.latency(),
        }
    }

    fn latency(&self) -> Latency {
        let buckets: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let all: u64 = buckets.iter().sum();
        if all == 0 {
            return Latency::default();
        }
        let (min_ns, max_ns) = (self.least.load(Relaxed), self.most.load(Relaxed));
        let at = |percent: u64| {
            let wanted = (all * percent).div_ceil(100);
            let mut seen = 0;
            let found = buckets.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            limit(found.unwrap_or(BUCKETS - 1)).clamp(min_ns, max_ns)
        };
        Latency { min_ns, p50_ns: at(50), p99_ns: at(99), max_ns }
    }
}

/// Adds to a count that only this thread writes.
pub(crate) fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed) + more, Relaxed);
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(value: u64) -> usize {
    if value < 16 {
        return value as usize;
    }
    let power = value.ilog2() as usize;
    let eighth = (value >> (power - 3) & 7) as usize;
    (16 + (power - 4) * 8 + eighth).min(BUCKETS - 1)
}

/// The largest value in a bucket.
fn limit(bucket: usize) -> u64 {
    if bucket < 16 {
        return bucket as u64;
    }
    let (power, eighth) = ((bucket - 16) / 8 + 4, (bucket - 16) as u64 % 8);
    ((8 + eighth + 1) << (power - 3)) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_is_at_most_an_eighth_wide(value in 0_u64..1 << 39) {
            let limit = limit(bucket(value));
            prop_assert!(value <= limit && limit - value <= value / 8);
        }
    }

    #[test]
    fn percentiles_are_of_what_was_counted() {
        let counts = Counts::new();
        let begun = Instant::now();
        for micros in 1..=100 {
            counts.fault(begun, begun + Duration::from_micros(micros));
        }
        let statistics = counts.read(VmId(1), None);
        assert_eq!(statistics.faults, 100);
        let Latency { min_ns, p50_ns, p99_ns, max_ns } = statistics.latency;
        assert_eq!((min_ns, max_ns), (1000, 100_000));
        assert!((50_000..57_000).contains(&p50_ns) && (99_000..=100_000).contains(&p99_ns));
        assert_eq!(Counts::new().latency(), Latency::default());
    }
}
