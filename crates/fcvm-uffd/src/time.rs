//! Durations as the kernel takes them.

use std::time::Duration;

use rustix::time::Timespec;

/// A time to wait; what is beyond reason is an hour.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    let duration = duration.min(Duration::from_secs(3600));
    Timespec { tv_sec: duration.as_secs().cast_signed(), tv_nsec: duration.subsec_nanos().into() }
}
