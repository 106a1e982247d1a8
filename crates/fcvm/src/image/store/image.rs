//! An image in the store: loading it, and holding it while a VM uses it.

use std::{
    fs::File,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    Store, json,
    record::{self, DISK_FORMAT, Record},
};
use crate::{
    hash::Digest,
    image::{
        ImageError,
        spec::{ImageConfig, MAX_JSON},
    },
};

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const RECORD: &str = "image.json";
pub(super) const DISK: &str = "disk.ext4";
pub(super) const LOCK: &str = "lock";

/// An image whose disk is made.
#[derive(Debug, Clone)]
pub struct StoredImage {
    /// The digest of the manifest, by which the image is stored.
    pub digest: Digest,
    /// The digest of the configuration: the image's id, as in Podman.
    pub id: Digest,
    /// The disk to give to a VM, read-only.
    pub disk: PathBuf,
    /// How it runs.
    pub config: ImageConfig,
    /// When it was stored, in seconds since 1970.
    pub stored: u64,
    /// The sum of the sizes of its files.
    pub unpacked: u64,
    /// What the disk takes of the host's disk.
    pub allocated: u64,
}

/// While this lives, the image cannot be removed.
#[derive(Debug)]
pub struct UseLock {
    _file: File,
}

/// What there is of an image.
pub(super) enum Loaded {
    Ready(Box<StoredImage>),
    Absent,
    /// Outdated or damaged; which file is.
    Unusable {
        path: PathBuf,
    },
}

impl StoredImage {
    /// Keeps the image from being removed for as long as the lock lives, or the
    /// process that has it.
    ///
    /// # Errors
    /// `NotFound` where the image was removed, or made anew, in the meantime.
    pub fn hold(&self) -> io::Result<UseLock> {
        let path = self.disk.with_file_name(LOCK);
        let file = File::open(&path)?;
        file.lock_shared()?;
        // Between opening and locking the directory may have gone.
        let (held, there) = (file.metadata()?, std::fs::metadata(&path)?);
        if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
            Ok(UseLock { _file: file })
        } else {
            Err(io::Error::new(io::ErrorKind::NotFound, "the image was replaced"))
        }
    }
}

impl Store {
    /// What `image.json` says, where there is one.
    pub(super) fn record(&self, digest: &Digest) -> Result<Option<Record>, ImageError> {
        json::read_versioned(&self.directory(digest).join(RECORD), record::VERSION, MAX_JSON)
    }

    /// The image, if it is there and whole. Reads no layer and not the disk.
    pub(super) fn load(&self, digest: &Digest) -> Result<Loaded, ImageError> {
        let directory = self.directory(digest);
        let record = match self.record(digest) {
            Ok(Some(record)) => record,
            Ok(None) if !directory.exists() => return Ok(Loaded::Absent),
            Ok(None) | Err(ImageError::Json { .. } | ImageError::Corrupt { .. }) => {
                return Ok(Loaded::Unusable { path: directory.join(RECORD) });
            }
            Err(error) => return Err(error),
        };
        let path = directory.join(DISK);
        if record.disk.format > DISK_FORMAT {
            return Err(ImageError::TooNew { path, found: record.disk.format, supported: DISK_FORMAT });
        }
        let disk = match std::fs::metadata(&path) {
            Ok(disk) => disk,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Unusable { path }),
            Err(source) => return Err(ImageError::Read { path, source }),
        };
        if record.disk.format < DISK_FORMAT || !record.disk.describes(&disk) {
            return Ok(Loaded::Unusable { path });
        }
        let manifest = directory.join(MANIFEST);
        if read_verified(&manifest, *digest)?.is_none() {
            return Ok(Loaded::Unusable { path: manifest });
        }
        let config_path = directory.join(CONFIG);
        let Some(config) = read_verified(&config_path, record.id)? else {
            return Ok(Loaded::Unusable { path: config_path });
        };
        let config = serde_json::from_slice(&config)
            .map_err(|source| ImageError::Json { path: config_path, source })?;
        Ok(Loaded::Ready(Box::new(StoredImage {
            digest: *digest,
            id: record.id,
            disk: path,
            config,
            stored: record.stored,
            unpacked: record.unpacked,
            allocated: disk.blocks() * 512,
        })))
    }
}

/// The bytes of a file, if it is there and has that digest.
pub(super) fn read_verified(path: &Path, expected: Digest) -> Result<Option<Vec<u8>>, ImageError> {
    match json::read(path, MAX_JSON) {
        Ok(bytes) => Ok(bytes.filter(|bytes| Digest::of(bytes) == expected)),
        Err(ImageError::Corrupt { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
