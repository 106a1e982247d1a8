//! Whether a file is what it was when the client last opened it: then its kernel keeps what it has read.

use std::{
    fs::File,
    sync::PoisonError,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{Stat, fstat};

use super::nodes::Node;

/// A file that changed less than this ago may change again and show the same time: the clock of some file
/// systems ticks once in 10 ms, and that of another machine may differ.
const SETTLED: Duration = Duration::from_millis(100);

/// What a change of the content changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn new(stat: &Stat) -> Self {
        let time = |seconds: i64, nanoseconds: u64| (seconds, i64::try_from(nanoseconds).unwrap_or_default());
        Self {
            size: stat.st_size,
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
            changed: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether a change after `now` could not look like this.
    fn is_settled(&self, now: Duration) -> bool {
        [self.modified, self.changed].into_iter().all(|(seconds, nanoseconds)| {
            let (Ok(seconds), Ok(nanoseconds)) = (u64::try_from(seconds), u32::try_from(nanoseconds)) else {
                // Before 1970.
                return true;
            };
            Duration::new(seconds, nanoseconds) + SETTLED < now
        })
    }
}

/// Whether the file that was opened is what it was at the last opening.
pub(super) fn is_unchanged(node: &Node, file: &File) -> bool {
    let Ok(stat) = fstat(file) else { return false };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let version = Some(Version::new(&stat)).filter(|version| version.is_settled(now));
    let mut seen = node.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let unchanged = version.is_some() && *seen == version;
    *seen = version;
    unchanged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_a_moment_ago_may_change_unseen() {
        let at =
            |seconds, nanoseconds| Version { size: 1, modified: (5, 0), changed: (seconds, nanoseconds) };
        let now = Duration::new(100, 50_000_000);
        assert!(at(99, 900_000_000).is_settled(now));
        assert!(!at(99, 960_000_000).is_settled(now));
        assert!(!at(2000, 0).is_settled(now), "of a clock that is ahead");
        assert!(at(-5, 7).is_settled(now));
    }
}
