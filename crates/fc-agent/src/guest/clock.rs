//! Time.

use std::io;

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

const NANOS: u64 = 1_000_000_000;

/// Nanoseconds since the kernel's start.
pub(crate) fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * NANOS + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Sets the wall clock to nanoseconds since 1970-01-01 UTC.
pub(super) fn set(unix_nanos: u64) -> io::Result<()> {
    let seconds = i64::try_from(unix_nanos / NANOS).map_err(io::Error::other)?;
    let nanos = i64::try_from(unix_nanos % NANOS).map_err(io::Error::other)?;
    clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: nanos as _ })?;
    Ok(())
}
