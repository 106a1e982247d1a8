//! Free space where a disk is made.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::DiskError;

/// Left free for others, and for what is still in buffers.
pub(super) const RESERVE: u64 = 64 << 20;
/// How much may be written before it is looked at again.
const INTERVAL: u64 = 16 << 20;

/// Watches the free space while a disk is written.
#[derive(Debug)]
pub(super) struct Room {
    directory: PathBuf,
    reserve: u64,
    unchecked: u64,
}

impl Room {
    pub(super) fn new(directory: &Path, reserve: u64) -> Self {
        Self { directory: directory.to_owned(), reserve, unchecked: 0 }
    }

    /// There must be so many bytes besides the reserve.
    pub(super) fn require(&self, bytes: u64) -> Result<(), DiskError> {
        let available = self.available()?;
        if available < self.reserve.saturating_add(bytes) {
            return Err(DiskError::NoSpace { directory: self.directory.clone(), available });
        }
        Ok(())
    }

    /// So many bytes are about to be written.
    pub(super) fn note(&mut self, bytes: u64) -> Result<(), DiskError> {
        self.unchecked += bytes;
        if self.unchecked >= INTERVAL {
            self.unchecked = 0;
            self.require(0)?;
        }
        Ok(())
    }

    /// The disk is full, as a write found out.
    pub(super) fn exhausted(&self) -> DiskError {
        DiskError::NoSpace { directory: self.directory.clone(), available: self.available().unwrap_or(0) }
    }

    fn available(&self) -> Result<u64, DiskError> {
        let stats = rustix::fs::statvfs(&self.directory).map_err(|error| DiskError::Write {
            path: self.directory.clone(),
            source: io::Error::from(error),
        })?;
        Ok(stats.f_bavail.saturating_mul(stats.f_frsize))
    }
}
