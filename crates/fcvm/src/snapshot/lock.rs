//! Locks of snapshots' directories: of the directories themselves, which are there however damaged what is
//! in them may be, and which keep their locks when they are renamed.

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// A directory that this process has, alone or with others, as long as this lives.
#[derive(Debug)]
pub(super) struct DirectoryLock(File);

/// What came of asking for a directory.
#[derive(Debug)]
pub(super) enum Owning {
    Owned(DirectoryLock),
    /// Others have it.
    Busy,
    /// There is none.
    Absent,
}

impl DirectoryLock {
    /// Takes a directory for this process alone, unless others have it.
    pub(super) fn own(path: &Path) -> io::Result<Owning> {
        let Some(file) = open(path)? else { return Ok(Owning::Absent) };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Owning::Busy),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let lock = Self(file);
        // Between opening and locking it may have gone, and another have come.
        Ok(if lock.is_at(path)? { Owning::Owned(lock) } else { Owning::Absent })
    }

    /// Has a part in a directory, once nobody has it alone; nothing where there is none.
    pub(super) fn share(path: &Path) -> io::Result<Option<Self>> {
        let Some(file) = open(path)? else { return Ok(None) };
        file.lock_shared()?;
        let lock = Self(file);
        Ok(lock.is_at(path)?.then_some(lock))
    }

    /// Lets others have a part; nothing where one of them was faster, and took it away.
    pub(super) fn into_shared(self, path: &Path) -> io::Result<Option<Self>> {
        self.0.lock_shared()?;
        Ok(self.is_at(path)?.then_some(self))
    }

    /// Makes what was done in it durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let held = self.0.metadata()?;
        match std::fs::symlink_metadata(path) {
            Ok(there) => Ok((held.dev(), held.ino()) == (there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_share_or_one_owns_what_is_there() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x");
        assert!(matches!(DirectoryLock::own(&path).unwrap(), Owning::Absent));
        assert!(DirectoryLock::share(&path).unwrap().is_none());
        std::fs::create_dir(&path).unwrap();
        let Owning::Owned(lock) = DirectoryLock::own(&path).unwrap() else { panic!("it is free") };
        assert!(matches!(DirectoryLock::own(&path).unwrap(), Owning::Busy));
        let lock = lock.into_shared(&path).unwrap().unwrap();
        let other = DirectoryLock::share(&path).unwrap().unwrap();
        drop(lock);
        assert!(matches!(DirectoryLock::own(&path).unwrap(), Owning::Busy));
        // Under another name it is no longer what was asked for.
        std::fs::rename(&path, place.path().join("y")).unwrap();
        assert!(other.into_shared(&path).unwrap().is_none());
    }
}
