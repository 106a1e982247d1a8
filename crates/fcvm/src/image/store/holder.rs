//! Who keeps an image from being removed.

use std::{
    fmt,
    fs::{File, TryLockError},
    io,
};

use super::{Store, image::LOCK};
use crate::{
    hash::Digest,
    image::ImageError,
    snapshot::{self, SnapshotTag},
};

/// Who keeps an image from being removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A VM that runs it.
    Vm,
    /// A snapshot whose machine has its disk.
    Snapshot(SnapshotTag),
}

impl Holder {
    /// What to do about it.
    pub(in crate::image) fn advice(&self) -> String {
        match self {
            Self::Vm => "stop the VM first".into(),
            Self::Snapshot(tag) => format!("remove the snapshot first: `fcvm snapshot rm {tag}`"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm => f.write_str("a running VM"),
            Self::Snapshot(tag) => write!(f, "snapshot `{tag}`"),
        }
    }
}

impl Store {
    /// Locks the image against use, unless somebody needs it: to remove it.
    pub(super) fn own(&self, digest: &Digest, name: &str) -> Result<Option<File>, ImageError> {
        let lock = self.own_disk(digest, name)?;
        // In this order: who makes a snapshot of a VM has the image in use until it is made.
        let user = snapshot::user_of_image(&self.snapshots, digest)
            .map_err(|source| ImageError::Read { path: self.snapshots.clone(), source })?;
        match user {
            None => Ok(lock),
            Some(tag) => Err(ImageError::InUse { name: name.to_owned(), holder: Holder::Snapshot(tag) }),
        }
    }

    /// Locks the image against use, unless a VM uses it: to make it again as it was.
    pub(super) fn own_disk(&self, digest: &Digest, name: &str) -> Result<Option<File>, ImageError> {
        let path = self.directory(digest).join(LOCK);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ImageError::Read { path, source }),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                Err(ImageError::InUse { name: name.to_owned(), holder: Holder::Vm })
            }
            Err(TryLockError::Error(source)) => Err(ImageError::Read { path, source }),
        }
    }

    /// Who keeps the image; also who makes or removes it, as a VM.
    pub(super) fn holder(&self, digest: &Digest) -> Result<Option<Holder>, ImageError> {
        match self.own(digest, &digest.to_string()) {
            Ok(_) => Ok(None),
            Err(ImageError::InUse { holder, .. }) => Ok(Some(holder)),
            Err(error) => Err(error),
        }
    }
}
