//! A snapshot that is there.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::{
    FileRecord, Host, Manifest, SnapshotError, SnapshotTag, Stamp, digest, host, lock::DirectoryLock, store,
};

/// A snapshot, which stays as long as this lives.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) tag: SnapshotTag,
    pub(super) directory: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) _lock: DirectoryLock,
}

/// How thoroughly a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// One of the same size and time is trusted.
    Stamp,
    /// It is read.
    Content,
}

impl Snapshot {
    /// What it is called.
    #[must_use]
    pub fn tag(&self) -> &SnapshotTag {
        &self.tag
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where one of its files is: [`STATE`](super::STATE), [`MEMORY`](super::MEMORY) or
    /// [`SCRATCH`](super::SCRATCH).
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What it takes of the host's disk, in bytes.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        store::allocated(&self.directory)
    }

    /// Refuses to go on where it cannot: on another processor or hypervisor, or where a file is not what it
    /// was. A file of the same size and time is trusted, another one is read.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self, host: &Host) -> Result<(), SnapshotError> {
        host::check(&self.manifest, &self.tag, host)?;
        self.check_files()
    }

    /// The same of the files alone.
    ///
    /// # Errors
    /// What the first one is that is not what it was.
    pub fn check_files(&self) -> Result<(), SnapshotError> {
        self.manifest.files.iter().try_for_each(|(name, record)| self.check_file(name, record, Care::Stamp))
    }

    /// Reads all files; what is wrong with each.
    ///
    /// # Errors
    /// Where a file cannot be read, for another reason than that it is not there.
    pub fn verify(&self) -> Result<Vec<SnapshotError>, SnapshotError> {
        let mut damaged = Vec::new();
        for (name, record) in &self.manifest.files {
            match self.check_file(name, record, Care::Content) {
                Ok(()) => {}
                Err(error) if error.is_damage() => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(damaged)
    }

    fn check_file(&self, name: &str, record: &FileRecord, care: Care) -> Result<(), SnapshotError> {
        let (tag, file) = (|| self.tag.clone(), || name.to_owned());
        let path = self.path(name);
        let read = || SnapshotError::io("read", &path);
        let open = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SnapshotError::Missing { tag: tag(), file: file() });
            }
            open => open.map_err(read())?,
        };
        let metadata = open.metadata().map_err(read())?;
        let (found, recorded) = (metadata.len(), record.size);
        if found != recorded {
            return Err(SnapshotError::Size { tag: tag(), file: file(), found, recorded });
        }
        if care == Care::Stamp && Stamp::of(&metadata) == record.stamp {
            return Ok(());
        }
        if digest::of_file(&open, found).map_err(read())? != record.sha256 {
            return Err(SnapshotError::Content { tag: tag(), file: file() });
        }
        Ok(())
    }
}
