//! What set-up recorded of a file, to tell later whether it is still that file.
//!
//! Beside `FILE` lies `FILE.json` with its digest, size and modification time.
//! Same size and time: trusted without reading, since this is checked at every
//! start of a VM. Another time: read and compared. No record: never finished.

use std::{
    fs::Metadata,
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::SetupError;
use crate::{hash::Digest, storage::AtomicFile};

const MANIFEST_VERSION: u32 = 1;

/// Size and modification time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Nanoseconds of the second.
    pub mtime_nanos: i64,
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.len(), mtime: metadata.mtime(), mtime_nanos: metadata.mtime_nsec() }
    }

    /// That of the file at `path`.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub(super) fn of_path(path: &Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::of(&metadata))
    }
}

/// The record of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    version: u32,
    /// Digest of the content; absent where reading it all is dearer than making it again.
    pub sha256: Option<Digest>,
    stamp: Stamp,
}

impl Manifest {
    /// Records the file at `path` as it is now.
    ///
    /// # Errors
    /// Where the file cannot be looked at, or the record cannot be written.
    pub(super) fn record(path: &Path, sha256: Option<Digest>) -> io::Result<()> {
        Self::write(path, sha256, Stamp::of_path(path)?)
    }

    fn write(path: &Path, sha256: Option<Digest>, stamp: Stamp) -> io::Result<()> {
        let manifest = Self { version: MANIFEST_VERSION, sha256, stamp };
        let mut text = serde_json::to_vec_pretty(&manifest).map_err(io::Error::other)?;
        text.push(b'\n');
        AtomicFile::write(&manifest_path(path), &text)
    }

    /// Whether the file at `path` is what was recorded; gives its digest.
    ///
    /// # Errors
    /// [`SetupError::Missing`] where file or record do not exist,
    /// [`SetupError::Corrupt`] where they do not match.
    pub(super) fn verify(path: &Path) -> Result<Option<Digest>, SetupError> {
        let missing = |source: io::Error, at: &Path| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                SetupError::Missing { path: path.to_owned() }
            }
            _ => SetupError::io("read", at, source),
        };
        let corrupt = || SetupError::Corrupt { path: path.to_owned() };
        let record = manifest_path(path);
        let text = std::fs::read(&record).map_err(|source| missing(source, &record))?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|_| corrupt())?;
        let stamp = Stamp::of_path(path).map_err(|source| missing(source, path))?;
        if manifest.version != MANIFEST_VERSION || stamp.size != manifest.stamp.size {
            return Err(corrupt());
        }
        if stamp != manifest.stamp {
            let read = || Digest::of_reader(&mut fs_err::File::open(path)?);
            let recorded = manifest.sha256.ok_or_else(corrupt)?;
            if read().map_err(|source| SetupError::io("read", path, source))? != recorded {
                return Err(corrupt());
            }
            // Not to read it all again next time; a data directory that is read-only costs just that.
            if let Err(error) = Self::write(path, manifest.sha256, stamp) {
                tracing::debug!(%error, path = %path.display(), "manifest not refreshed");
            }
        }
        Ok(manifest.sha256)
    }

    /// Forgets the record, before the file is replaced.
    ///
    /// # Errors
    /// Where it exists and cannot be removed.
    pub(super) fn forget(path: &Path) -> io::Result<()> {
        match fs_err::remove_file(manifest_path(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Where the record of the file at `path` lies.
#[must_use]
pub(super) fn manifest_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::SystemTime};

    use super::*;

    #[test]
    fn a_file_is_what_was_recorded_or_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("disk");
        assert!(matches!(Manifest::verify(&path), Err(SetupError::Missing { .. })));
        std::fs::write(&path, "content").unwrap();
        assert!(matches!(Manifest::verify(&path), Err(SetupError::Missing { .. })), "never finished");
        let digest = Some(Digest::of(b"content"));
        Manifest::record(&path, digest).unwrap();
        assert_eq!(Manifest::verify(&path).unwrap(), digest);

        let record = std::fs::read(manifest_path(&path)).unwrap();
        let touch = || File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        touch();
        assert_eq!(Manifest::verify(&path).unwrap(), digest, "the same content at another time");
        assert_ne!(std::fs::read(manifest_path(&path)).unwrap(), record, "the new time is recorded");

        for wrong in ["contenT", "longer content", ""] {
            std::fs::write(&path, wrong).unwrap();
            assert!(matches!(Manifest::verify(&path), Err(SetupError::Corrupt { .. })), "{wrong}");
        }
        std::fs::write(&path, "content").unwrap();
        std::fs::write(manifest_path(&path), "{").unwrap();
        assert!(matches!(Manifest::verify(&path), Err(SetupError::Corrupt { .. })));
        Manifest::forget(&path).unwrap();
        Manifest::forget(&path).unwrap();
    }

    #[test]
    fn without_a_digest_only_the_stamp_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("template");
        std::fs::write(&path, "content").unwrap();
        Manifest::record(&path, None).unwrap();
        assert_eq!(Manifest::verify(&path).unwrap(), None);
        File::open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(matches!(Manifest::verify(&path), Err(SetupError::Corrupt { .. })));
    }
}
