//! The snapshots of a data directory.
//!
//! ```text
//! absent -- begin --> .tmp-* -- commit --> TAG -- remove --> .tmp-* --> absent
//!                     (owned by who writes; killed: owned by nobody, and removed by the next command)
//! ```
//! Directories are locked themselves: a snapshot is shared by those who use it, and owned by who removes it.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    MANIFEST, Manifest, Partial, Snapshot, SnapshotError, SnapshotTag, Unnamed,
    lock::{DirectoryLock, Owning},
    needs, read, unnamed,
};
use crate::{
    failpoint,
    state::{Registry, RuntimeDir, VmName},
    storage::{DataDir, TEMPORARY_PREFIX},
};

/// The snapshots of a data directory.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    data: DataDir,
}

/// One of all snapshots.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub tag: SnapshotTag,
    /// What it says of itself, or why that cannot be understood.
    pub manifest: Result<Manifest, SnapshotError>,
    /// What it takes of the host's disk, in bytes.
    pub allocated: u64,
}

/// What was pruned, and what was not.
#[derive(Debug, Default)]
pub struct Pruned {
    /// What is gone, and the bytes of the host's disk that it took.
    pub removed: Vec<(SnapshotTag, u64)>,
    /// What stays, as it is used.
    pub in_use: Vec<SnapshotTag>,
}

impl Store {
    /// Those of this data directory. Nothing is created before it is needed.
    #[must_use]
    pub fn open(data: &DataDir) -> Self {
        Self { root: data.snapshots(), data: data.clone() }
    }

    /// Those that fcvm keeps for itself: their tags are keys. Nobody misses one that is gone.
    #[must_use]
    pub(crate) fn kept_in(root: PathBuf, data: &DataDir) -> Self {
        Self { root, data: data.clone() }
    }

    /// Begins a snapshot.
    ///
    /// # Errors
    /// Where there is one of that name, or its directory cannot be made.
    pub fn begin(&self, tag: &SnapshotTag) -> Result<Partial, SnapshotError> {
        let directory = self.directory(tag);
        match fs::symlink_metadata(&directory) {
            Ok(_) => Err(SnapshotError::Exists { tag: tag.clone() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Partial::make(&self.root, tag),
            Err(error) => Err(SnapshotError::io("read", &directory)(error)),
        }
    }

    /// A place for a snapshot without a name.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn reserve(&self) -> Result<Unnamed, SnapshotError> {
        Unnamed::reserve(&self.root)
    }

    /// Begins the snapshot of a place that somebody has reserved.
    ///
    /// # Errors
    /// Where nobody has.
    pub fn begin_unnamed(&self, name: &str, tag: &SnapshotTag) -> Result<Partial, SnapshotError> {
        let (directory, lock) = self.share_unnamed(name)?;
        Ok(Partial::lent(directory, tag, lock))
    }

    /// A snapshot without a name, which stays while what is returned lives.
    ///
    /// # Errors
    /// As of [`get`](Self::get).
    pub fn get_unnamed(&self, name: &str) -> Result<Snapshot, SnapshotError> {
        let (directory, lock) = self.share_unnamed(name)?;
        let manifest = read::read(&directory)?
            .ok_or_else(|| SnapshotError::NoManifest { path: directory.join(MANIFEST) })?;
        Ok(Snapshot { tag: manifest.tag.clone(), directory, manifest, _lock: lock })
    }

    fn share_unnamed(&self, name: &str) -> Result<(PathBuf, DirectoryLock), SnapshotError> {
        let gone = || SnapshotError::Gone { name: name.to_owned() };
        let directory = unnamed::directory(&self.root, name).ok_or_else(gone)?;
        let lock = DirectoryLock::share(&directory).map_err(SnapshotError::io("lock", &directory))?;
        Ok((directory, lock.ok_or_else(gone)?))
    }

    /// A snapshot, which cannot be removed while what is returned lives. Its files are not looked at:
    /// [`Snapshot::check`].
    ///
    /// # Errors
    /// Where there is none, or what it says of itself cannot be understood.
    pub fn get(&self, tag: &SnapshotTag) -> Result<Snapshot, SnapshotError> {
        let unknown = || SnapshotError::Unknown { tag: tag.clone() };
        let directory = self.directory(tag);
        let lock = DirectoryLock::share(&directory).map_err(SnapshotError::io("lock", &directory))?;
        let lock = lock.ok_or_else(unknown)?;
        let manifest = Manifest { tag: tag.clone(), ..read::read(&directory)?.ok_or_else(unknown)? };
        Ok(Snapshot { tag: tag.clone(), directory, manifest, _lock: lock })
    }

    /// All snapshots, by name.
    ///
    /// # Errors
    /// Where the directory cannot be read; a damaged snapshot is no error of the list.
    pub fn list(&self) -> Result<Vec<Listed>, SnapshotError> {
        let mut all = Vec::new();
        for tag in needs::tags(&self.root).map_err(SnapshotError::io("read", &self.root))? {
            let directory = self.directory(&tag);
            let manifest = match read::read(&directory) {
                Ok(Some(manifest)) => Ok(Manifest { tag: tag.clone(), ..manifest }),
                // Removed since.
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            all.push(Listed { allocated: allocated(&directory), tag, manifest });
        }
        Ok(all)
    }

    /// The live VMs that came from a snapshot, by name.
    #[must_use]
    pub fn clones(&self, tag: &SnapshotTag) -> Vec<VmName> {
        self.all_clones().remove(tag.as_str()).unwrap_or_default()
    }

    /// The live VMs that came from snapshots, by the snapshots' names.
    #[must_use]
    pub fn all_clones(&self) -> BTreeMap<String, Vec<VmName>> {
        let vms = Registry::new(&self.data, RuntimeDir::from_env()).list().unwrap_or_else(|error| {
            tracing::debug!(%error, "which VMs there are is not known");
            Vec::new()
        });
        let mut clones: BTreeMap<String, Vec<VmName>> = BTreeMap::new();
        for vm in vms {
            if let Some(snapshot) = vm.snapshot_name {
                clones.entry(snapshot).or_default().push(vm.name);
            }
        }
        clones
    }

    /// Removes a snapshot, damaged or not. It is gone at once, however long that takes.
    ///
    /// # Errors
    /// Where there is none, it is used, or it cannot be removed.
    pub fn remove(&self, tag: &SnapshotTag) -> Result<(), SnapshotError> {
        let directory = self.directory(tag);
        let lock = match DirectoryLock::own(&directory).map_err(SnapshotError::io("lock", &directory))? {
            Owning::Owned(lock) => lock,
            Owning::Busy => return Err(SnapshotError::InUse { tag: tag.clone(), vms: self.clones(tag) }),
            Owning::Absent => return Err(SnapshotError::Unknown { tag: tag.clone() }),
        };
        let failed = || SnapshotError::io("remove", &directory);
        // Empty, and so replaced by the snapshot.
        let doomed =
            tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(&self.root).map_err(failed())?;
        fs::rename(&directory, doomed.path()).map_err(failed())?;
        failpoint::reach("snapshot-doomed");
        match doomed.close() {
            // Another command may have taken it for what a crash left.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed()(error)),
            _ => {
                drop(lock);
                Ok(())
            }
        }
    }

    /// Takes the name from a snapshot that is used: nobody finds it any more, and it goes when its last user ends.
    ///
    /// # Errors
    /// Where it cannot be renamed.
    pub(crate) fn abandon(&self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let directory = snapshot.directory();
        let failed = || SnapshotError::io("remove", directory);
        // Empty, and so replaced by the snapshot; what has such a name and is nobody's is garbage.
        let doomed =
            tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(&self.root).map_err(failed())?;
        fs::rename(directory, doomed.path()).map_err(failed())?;
        drop(doomed.keep());
        Ok(())
    }

    /// Removes the snapshots that nobody uses and that were made before a time, where one is given: those
    /// that do not tell their age then stay.
    ///
    /// # Errors
    /// Where the directory cannot be read, or one cannot be removed.
    pub fn prune(&self, before: Option<Timestamp>) -> Result<Pruned, SnapshotError> {
        let mut pruned = Pruned::default();
        for Listed { tag, manifest, allocated } in self.list()? {
            let is_old = |before| manifest.as_ref().is_ok_and(|manifest| manifest.created < before);
            if !before.is_none_or(is_old) {
                continue;
            }
            match self.remove(&tag) {
                Ok(()) => pruned.removed.push((tag, allocated)),
                Err(SnapshotError::InUse { .. }) => pruned.in_use.push(tag),
                // Somebody else was faster.
                Err(SnapshotError::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(pruned)
    }

    /// What was left by those who were killed while they wrote or removed a snapshot.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn garbage(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        Ok(self.abandoned()?.into_iter().map(|(path, _)| path).collect())
    }

    /// Removes that; what it was.
    ///
    /// # Errors
    /// Where the directory cannot be read, or something cannot be removed.
    pub fn collect_garbage(&self) -> Result<Vec<PathBuf>, SnapshotError> {
        let mut collected = Vec::new();
        for (path, _lock) in self.abandoned()? {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SnapshotError::io("remove", &path)(error));
                }
                _ => collected.push(path),
            }
        }
        Ok(collected)
    }

    /// What nobody writes or removes any more, owned by us.
    fn abandoned(&self) -> Result<Vec<(PathBuf, DirectoryLock)>, SnapshotError> {
        let failed = || SnapshotError::io("read", &self.root);
        let entries = match fs::read_dir(&self.root) {
            // Who may not look may not remove anything either; what needs snapshots says so.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
            {
                return Ok(Vec::new());
            }
            entries => entries.map_err(failed())?,
        };
        let mut abandoned = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed())?;
            if !entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
                continue;
            }
            let path = entry.path();
            match DirectoryLock::own(&path).map_err(SnapshotError::io("lock", &path))? {
                Owning::Owned(lock) => abandoned.push((path, lock)),
                Owning::Busy | Owning::Absent => {}
            }
        }
        Ok(abandoned)
    }

    fn directory(&self, tag: &SnapshotTag) -> PathBuf {
        self.root.join(tag.as_str())
    }
}

/// What the files of a directory take of the host's disk.
pub(super) fn allocated(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512).sum()
}
