//! A snapshot that is being written.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

use super::{
    FileRecord, MANIFEST, Manifest, Snapshot, SnapshotError, SnapshotTag, Stamp,
    difference::Difference,
    digest,
    lock::{DirectoryLock, Owning},
    read::MAX_MANIFEST,
};
use crate::{failpoint, storage::TEMPORARY_PREFIX};

/// A snapshot's directory under another name. Dropped before [`commit`](Self::commit), it is gone; of one
/// whose process died, the next command finds that nobody has it. One without a name stays where it is.
#[derive(Debug)]
pub struct Partial {
    tag: SnapshotTag,
    directory: Place,
    lock: DirectoryLock,
    /// What its memory file is to share with another one.
    difference: Option<Difference>,
}

/// Where it is written.
#[derive(Debug)]
enum Place {
    /// Among all snapshots, to get its name there; removed when dropped.
    Own { root: PathBuf, directory: tempfile::TempDir },
    /// Another's, who has it still: there it stays.
    Lent(PathBuf),
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Own { directory, .. } => directory.path(),
            Self::Lent(directory) => directory,
        }
    }
}

/// A directory of a name that means nothing, which nobody but the user may look into.
pub(super) fn directory_in(root: &Path) -> Result<tempfile::TempDir, SnapshotError> {
    fs::create_dir_all(root).map_err(SnapshotError::io("make", root))?;
    tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(root)
        .map_err(SnapshotError::io("make a directory in", root))
}

impl Partial {
    /// Makes its directory.
    pub(super) fn make(root: &Path, tag: &SnapshotTag) -> Result<Self, SnapshotError> {
        loop {
            let directory = directory_in(root)?;
            let locked = DirectoryLock::own(directory.path());
            match locked.map_err(SnapshotError::io("lock", directory.path()))? {
                Owning::Owned(lock) => {
                    failpoint::reach("snapshot-begun");
                    let directory = Place::Own { root: root.to_owned(), directory };
                    return Ok(Self { tag: tag.clone(), directory, lock, difference: None });
                }
                // Another command took it for what a crash left: it removes it, or has.
                Owning::Busy | Owning::Absent => {}
            }
        }
    }

    /// One in a directory that another one has reserved.
    pub(super) fn lent(directory: PathBuf, tag: &SnapshotTag, lock: DirectoryLock) -> Self {
        failpoint::reach("snapshot-begun");
        Self { tag: tag.clone(), directory: Place::Lent(directory), lock, difference: None }
    }

    /// What it is to be called.
    #[must_use]
    pub fn tag(&self) -> &SnapshotTag {
        &self.tag
    }

    /// Where a file is to be until then: [`STATE`](super::STATE), [`MEMORY`](super::MEMORY),
    /// [`SCRATCH`](super::SCRATCH), or [that of a volume](crate::volume::state_file). What else is made there is
    /// removed.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Has its memory file share what is the same with another snapshot's.
    ///
    /// # Errors
    /// Where that one has no memory, or files cannot share anything here.
    pub fn share(&mut self, base: Snapshot) -> Result<(), SnapshotError> {
        self.difference = Some(Difference::begin(base, self.directory.path())?);
        Ok(())
    }

    /// Makes it a snapshot, whole and durable, as its manifest says. The records of its files are made
    /// here: which files there are to be, its contents say; what the manifest says of them is not looked at.
    ///
    /// # Errors
    /// Where a file is missing or cannot be read, something cannot be written, or there is a snapshot of
    /// that name by now. Nothing is left then.
    pub fn commit(mut self, mut manifest: Manifest) -> Result<Snapshot, SnapshotError> {
        let difference = self.difference.take();
        manifest.base = difference.map(|difference| difference.end(self.directory.path())).transpose()?;
        manifest.files = self.records(manifest.file_names())?;
        self.finish(manifest)
    }

    /// The same, where the records of the files are known but for their times.
    pub(super) fn commit_known(
        self,
        mut manifest: Manifest,
        files: BTreeMap<String, FileRecord>,
    ) -> Result<Snapshot, SnapshotError> {
        manifest.files = files;
        manifest.base = None;
        for (name, record) in &mut manifest.files {
            let path = self.path(name);
            record.stamp =
                self.open(name)?.metadata().map(|file| Stamp::of(&file)).map_err(read_error(&path))?;
        }
        self.finish(manifest)
    }

    fn records(&self, names: Vec<String>) -> Result<BTreeMap<String, FileRecord>, SnapshotError> {
        let mut records = BTreeMap::new();
        for name in names {
            let path = self.path(&name);
            let file = self.open(&name)?;
            let record = record(&file).map_err(read_error(&path))?;
            records.insert(name, record);
        }
        Ok(records)
    }

    fn open(&self, name: &str) -> Result<File, SnapshotError> {
        match File::open(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(SnapshotError::Missing { tag: self.tag.clone(), file: name.to_owned() })
            }
            opened => opened.map_err(read_error(&self.path(name))),
        }
    }

    fn finish(self, mut manifest: Manifest) -> Result<Snapshot, SnapshotError> {
        manifest.tag = self.tag.clone();
        self.remove_others(&manifest)?;
        // What has no name is not to outlive its users, and so no crash of the host either.
        let durable = matches!(self.directory, Place::Own { .. });
        for name in manifest.files.keys().filter(|_| durable) {
            self.open(name)?.sync_all().map_err(SnapshotError::io("write", &self.path(name)))?;
        }
        failpoint::reach("snapshot-files-written");
        let path = self.path(MANIFEST);
        let bytes = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| SnapshotError::Json { path: path.clone(), source })?;
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(SnapshotError::LongManifest { path });
        }
        let write = || {
            let mut file = File::create_new(&path)?;
            file.write_all(&bytes)?;
            if durable { file.sync_all() } else { Ok(()) }
        };
        write().map_err(SnapshotError::io("write", &path))?;
        if durable {
            self.lock.sync().map_err(SnapshotError::io("write", self.directory.path()))?;
        }
        failpoint::reach("snapshot-written");
        self.publish(manifest)
    }

    /// Gives the directory its name, unless another one has it.
    fn publish(self, manifest: Manifest) -> Result<Snapshot, SnapshotError> {
        let Self { tag, directory, lock, .. } = self;
        let (root, directory) = match directory {
            Place::Own { root, directory } => (root, directory),
            Place::Lent(directory) => return Ok(Snapshot { tag, directory, manifest, _lock: lock }),
        };
        let target = root.join(tag.as_str());
        match rename_new(directory.path(), &target) {
            Ok(()) => {}
            Err(Errno::EXIST | Errno::NOTEMPTY) => return Err(SnapshotError::Exists { tag }),
            Err(error) => return Err(SnapshotError::io("make", &target)(error.into())),
        }
        // It has another name now, and must not be looked for under the old one.
        drop(directory.keep());
        failpoint::reach("snapshot-named");
        File::open(&root).and_then(|root| root.sync_all()).map_err(SnapshotError::io("write", &root))?;
        match lock.into_shared(&target).map_err(SnapshotError::io("lock", &target))? {
            Some(lock) => Ok(Snapshot { tag, directory: target, manifest, _lock: lock }),
            // Somebody removed it between the two locks.
            None => Err(SnapshotError::Unknown { tag }),
        }
    }

    fn remove_others(&self, manifest: &Manifest) -> Result<(), SnapshotError> {
        let entries = fs::read_dir(self.directory.path()).map_err(read_error(self.directory.path()))?;
        for entry in entries {
            let entry = entry.map_err(read_error(self.directory.path()))?;
            if entry.file_name().to_str().is_some_and(|name| manifest.files.contains_key(name)) {
                continue;
            }
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(SnapshotError::io("remove", &path))?;
        }
        Ok(())
    }
}

/// What there is to be known of a file.
fn record(file: &File) -> io::Result<FileRecord> {
    let metadata = file.metadata()?;
    let size = metadata.len();
    Ok(FileRecord { size, sha256: digest::of_file(file, size)?, stamp: Stamp::of(&metadata) })
}

impl Stamp {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { mtime: metadata.mtime(), mtime_nanos: metadata.mtime_nsec() }
    }
}

fn read_error(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    SnapshotError::io("read", path)
}

/// Renames a directory, unless there is something of the new name.
fn rename_new(from: &Path, to: &Path) -> Result<(), Errno> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag. Without it only an empty directory would be replaced.
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::rename(from, to),
        renamed => renamed,
    }
}
