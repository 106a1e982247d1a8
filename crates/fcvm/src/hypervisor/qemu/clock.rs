//! The frequency of the time stamp counter.
//!
//! An emulated guest that has to find it out by itself hangs for ever when the
//! host is busy during its measurement; so it is told.

/// The counter's frequency in kHz; `None` where the architecture has none.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn tsc_khz() -> Option<u64> {
    None
}

/// The counter's frequency in kHz, measured once per process against the raw clock.
///
/// The kernel does not tell. Each end of the interval is the tightest of several
/// readings, which bounds the error to well below the 500 ppm that a guest's
/// clock corrects.
#[cfg(target_arch = "x86_64")]
pub(super) fn tsc_khz() -> Option<u64> {
    use std::{sync::OnceLock, time::Duration};

    static KHZ: OnceLock<u64> = OnceLock::new();
    Some(*KHZ.get_or_init(|| {
        let (first_count, first_nanos) = reading();
        std::thread::sleep(Duration::from_millis(10));
        let (last_count, last_nanos) = reading();
        let counts = u128::from(last_count.wrapping_sub(first_count));
        let nanos = u128::from(last_nanos.saturating_sub(first_nanos).max(1));
        u64::try_from(counts * 1_000_000 / nanos).unwrap_or(u64::MAX)
    }))
}

/// Counter and raw clock (nanoseconds) at the same moment.
#[cfg(target_arch = "x86_64")]
fn reading() -> (u64, u64) {
    use rustix::time::{ClockId, clock_gettime};

    let mut best = (u64::MAX, 0, 0);
    for _ in 0..16 {
        let before = super::sys::time_stamp();
        let now = clock_gettime(ClockId::MonotonicRaw);
        let after = super::sys::time_stamp();
        let width = after.wrapping_sub(before);
        if width < best.0 {
            let nanos = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
            best = (width, before.wrapping_add(width / 2), nanos);
        }
    }
    (best.1, best.2)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn the_frequency_is_plausible_and_stable() {
        let khz = tsc_khz().unwrap();
        assert!((500_000..10_000_000).contains(&khz), "{khz}");
        assert_eq!(tsc_khz(), Some(khz));
    }
}
