//! The rows of the table.

use serde::Serialize;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Row {
    Read256Cold,
    Read256Warm,
    Read16Cold,
    Read16Warm,
    Read1Cold,
    Read1Warm,
    Write256First,
    Write256,
    Write1First,
    Write1,
    Getattr,
    Miss,
    OpenClose,
    ReadUncached,
    Readdir,
    ReaddirAgain,
    CreateUnlink,
    Sequential,
    Direct,
    Untar,
    Du,
    Remove,
    GitStatus,
}

/// Where a row is to be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// At most so many times what the host takes.
    Times(f64),
    /// At most so much.
    AtMost(f64),
    /// At least so much.
    AtLeast(f64),
}

impl Row {
    pub(crate) const ALL: [Self; 23] = [
        Self::Read256Cold,
        Self::Read256Warm,
        Self::Read16Cold,
        Self::Read16Warm,
        Self::Read1Cold,
        Self::Read1Warm,
        Self::Write256First,
        Self::Write256,
        Self::Write1First,
        Self::Write1,
        Self::Getattr,
        Self::Miss,
        Self::OpenClose,
        Self::ReadUncached,
        Self::Readdir,
        Self::ReaddirAgain,
        Self::CreateUnlink,
        Self::Sequential,
        Self::Direct,
        Self::Untar,
        Self::Du,
        Self::Remove,
        Self::GitStatus,
    ];

    /// Its name and unit.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Read256Cold => "read 1024 x 4K, 256 threads, cold, ms",
            Self::Read256Warm => "the same, warm",
            Self::Read16Cold => "read 1024 x 4K, 16 threads, cold, ms",
            Self::Read16Warm => "the same, warm",
            Self::Read1Cold => "read 1024 x 4K, 1 thread, cold, ms",
            Self::Read1Warm => "the same, warm",
            Self::Write256First => "write + fsync, 256 threads, new files, ms",
            Self::Write256 => "the same, steady",
            Self::Write1First => "write + fsync, 1 thread, new files, ms",
            Self::Write1 => "the same, steady",
            Self::Getattr => "getattr forced, us",
            Self::Miss => "lookup miss, us",
            Self::OpenClose => "open + close, us",
            Self::ReadUncached => "read 4K uncached, us",
            Self::Readdir => "readdir 1000 uncached, us",
            Self::ReaddirAgain => "the same, again",
            Self::CreateUnlink => "create + unlink, us",
            Self::Sequential => "sequential read 512M cold, MiB/s",
            Self::Direct => "O_DIRECT 4K qd32, kIOPS",
            Self::Untar => "untar 8,000 files, ms",
            Self::Du => "du -s, ms",
            Self::Remove => "rm -rf, ms",
            Self::GitStatus => "git status, cold, ms",
        }
    }

    /// Whether more is better.
    pub(crate) fn is_rate(self) -> bool {
        matches!(self, Self::Sequential | Self::Direct)
    }

    /// Where a pipe with that cache is to be.
    pub(crate) fn target(self, cache: &str) -> Option<Target> {
        Some(match (self, cache) {
            (Self::Read256Warm, "always") => Target::Times(1.5),
            (Self::Read256Warm, "auto") => Target::Times(8.0),
            (Self::Read256Cold, _) => Target::Times(15.0),
            (Self::Read1Cold, _) => Target::Times(45.0),
            (Self::OpenClose, "always") => Target::Times(2.0),
            (Self::Readdir, _) => Target::Times(5.0),
            (Self::CreateUnlink, _) => Target::Times(14.0),
            (Self::Getattr, _) => Target::AtMost(15.0),
            (Self::Write256, _) => Target::Times(2.0),
            (Self::Sequential, _) => Target::AtLeast(1228.8),
            (Self::Untar, _) => Target::Times(12.0),
            _ => return None,
        })
    }
}

impl Target {
    pub(crate) fn is_met(self, value: f64, host: f64) -> bool {
        match self {
            Self::Times(times) => value <= host * times,
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}
