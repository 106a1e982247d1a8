//! `image.json`: what the store knows of an image beside its own files.

use std::{fs::Metadata, os::unix::fs::MetadataExt as _};

use serde::{Deserialize, Serialize};

use crate::{hash::Digest, image::model::DiskStats};

/// Of `image.json`.
pub(super) const VERSION: u32 = 1;

/// Raised whenever the writer of disks makes them differently, so that older
/// disks are made anew.
pub(super) const DISK_FORMAT: u32 = 2;

/// The content of `image.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    pub(super) version: u32,
    /// Of the configuration; the image's id.
    pub(super) id: Digest,
    /// Seconds since 1970.
    pub(super) stored: u64,
    /// The sum of the sizes of the image's files.
    pub(super) unpacked: u64,
    pub(super) files: u64,
    pub(super) disk: DiskRecord,
}

/// By which a disk that was changed, cut off or replaced is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DiskRecord {
    pub(super) format: u32,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) mtime_nanoseconds: i64,
}

impl Record {
    pub(super) fn new(id: Digest, stored: u64, stats: &DiskStats, disk: &Metadata) -> Self {
        let disk = DiskRecord {
            format: DISK_FORMAT,
            size: disk.len(),
            mtime: disk.mtime(),
            mtime_nanoseconds: disk.mtime_nsec(),
        };
        Self { version: VERSION, id, stored, unpacked: stats.unpacked, files: stats.files, disk }
    }
}

impl DiskRecord {
    /// Whether the file is, by all appearances, still the one that was written.
    pub(super) fn describes(&self, disk: &Metadata) -> bool {
        disk.is_file()
            && disk.len() == self.size
            && disk.mtime() == self.mtime
            && disk.mtime_nsec() == self.mtime_nanoseconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These bytes are on users' disks. If this fails, raise [`VERSION`].
    #[test]
    fn image_json_v1_is_frozen() {
        let record = Record {
            version: 1,
            id: Digest::of(b""),
            stored: 5,
            unpacked: 6,
            files: 7,
            disk: DiskRecord { format: 1, size: 2, mtime: 3, mtime_nanoseconds: 4 },
        };
        let text = r#"{"version":1,"id":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","stored":5,"unpacked":6,"files":7,"disk":{"format":1,"size":2,"mtime":3,"mtime_nanoseconds":4}}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<Record>(text).unwrap(), record);
    }
}
