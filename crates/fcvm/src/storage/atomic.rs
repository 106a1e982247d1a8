//! Files that are there whole or not at all, and locks between processes.

use std::{
    fs::{File, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

/// A file written under a temporary name in its directory, and renamed to its
/// own name by [`commit`](Self::commit). Dropped before that, it is gone.
#[derive(Debug)]
pub struct AtomicFile {
    temporary: NamedTempFile,
    target: PathBuf,
}

impl AtomicFile {
    /// Starts writing `target`; its directory is created where missing.
    ///
    /// # Errors
    /// Where the directory or the temporary file cannot be created.
    pub fn create(target: &Path) -> io::Result<Self> {
        let directory = target.parent().unwrap_or(Path::new("."));
        fs_err::create_dir_all(directory)?;
        let temporary = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempfile_in(directory)?;
        Ok(Self { temporary, target: target.to_owned() })
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    /// The open file, to write to.
    pub fn file_mut(&mut self) -> &mut File {
        self.temporary.as_file_mut()
    }

    /// Its name until it is committed.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes `bytes` as `target`, whole or not at all, for as long as the host runs: not synced.
    ///
    /// # Errors
    /// As of the steps.
    pub fn write_volatile(target: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = Self::create(target)?;
        file.file_mut().write_all(bytes)?;
        crate::failpoint::reach("file-unnamed");
        file.temporary.persist(&file.target).map_err(|error| error.error)?;
        Ok(())
    }

    /// Lets everybody read and execute it.
    ///
    /// # Errors
    /// Where its mode cannot be changed.
    pub fn make_executable(&self) -> io::Result<()> {
        self.file().set_permissions(Permissions::from_mode(0o755))
    }

    /// Makes the content durable and gives it its name, replacing what was there.
    ///
    /// # Errors
    /// Where syncing or renaming fails; the temporary file is then removed.
    pub fn commit(self) -> io::Result<()> {
        self.temporary.as_file().sync_all()?;
        self.temporary.persist(&self.target).map_err(|error| error.error)?;
        Ok(())
    }

    /// Writes `bytes` as `target`, atomically.
    ///
    /// # Errors
    /// As of the steps.
    pub fn write(target: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut file = Self::create(target)?;
        file.file_mut().write_all(bytes)?;
        file.commit()
    }
}

/// Names of temporary files start with this, so that what a crash left can be told.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// A lock between processes (flock), released when dropped or when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A lock could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("failed to lock `{path}`")]
pub struct LockError {
    path: PathBuf,
    source: io::Error,
}

impl Lock {
    /// Waits for the lock at `path`; calls `waiting` once where another process holds it.
    ///
    /// # Errors
    /// Where the lock file cannot be created or locked.
    pub fn acquire(path: &Path, waiting: impl FnOnce()) -> Result<Self, LockError> {
        let lock = |file: &File| match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock()
            }
            other => other.map_err(io::Error::from),
        };
        Ok(Self { _file: with_file(path, |file| lock(&file).map(|()| file))? })
    }

    /// Takes the lock at `path` where nobody holds it.
    ///
    /// # Errors
    /// As of [`acquire`](Self::acquire).
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, LockError> {
        with_file(path, |file| match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        })
    }

    /// Waits for a share of the lock at `path`, which has many sharers or one owner.
    ///
    /// # Errors
    /// As of [`acquire`](Self::acquire).
    pub fn share(path: &Path) -> Result<Self, LockError> {
        with_file(path, |file| file.lock_shared().map(|()| Self { _file: file }))
    }
}

fn with_file<T>(path: &Path, lock: impl FnOnce(File) -> io::Result<T>) -> Result<T, LockError> {
    let open = || -> io::Result<File> {
        if let Some(directory) = path.parent() {
            fs_err::create_dir_all(directory)?;
        }
        File::options().create(true).truncate(false).write(true).read(true).open(path)
    };
    open().and_then(lock).map_err(|source| LockError { path: path.to_owned(), source })
}
