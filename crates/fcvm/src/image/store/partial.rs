//! Blobs on their way.

use std::{
    fs::{File, TryLockError},
    io::{self, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    hash::{Digest, Hasher},
    image::ImageError,
};

/// The beginning of a blob, perhaps of somebody who was killed. Nobody else goes on with it while
/// this lives. Dropped, it stays for the next.
pub(in crate::image) struct PartialBlob {
    file: File,
    path: PathBuf,
    target: PathBuf,
    hasher: Hasher,
    size: u64,
}

impl PartialBlob {
    /// `None` where `target` is there.
    pub(super) fn open(path: PathBuf, target: PathBuf) -> Result<Option<Self>, ImageError> {
        let failed = |source| ImageError::Write { path: path.clone(), source };
        let mut file = loop {
            if target.exists() {
                return Ok(None);
            }
            let file = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let file = file.map_err(failed)?;
            lock(&file, &path).map_err(failed)?;
            // Whoever had it may have finished it, and given it its name, or removed it.
            if is_at(&file, &path).map_err(failed)? {
                if !target.exists() {
                    break file;
                }
                std::fs::remove_file(&path).map_err(failed)?;
            }
        };
        let mut hasher = Hasher::default();
        let size = io::copy(&mut file, &mut hasher).map_err(failed)?;
        Ok(Some(Self { file, path, target, hasher, size }))
    }

    /// How many bytes there are.
    pub(in crate::image) fn size(&self) -> u64 {
        self.size
    }

    /// The digest of the bytes there are.
    pub(in crate::image) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    pub(in crate::image) fn write(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let written = self.file.write_all(bytes).and_then(|()| self.hasher.write_all(bytes));
        if let Err(source) = written {
            let error = ImageError::Write { path: self.path.clone(), source };
            // What was written of it is not known; and where the disk is full, all of it is in the way.
            self.reset()?;
            return Err(error);
        }
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Starts again.
    pub(in crate::image) fn reset(&mut self) -> Result<(), ImageError> {
        (self.hasher, self.size) = (Hasher::default(), 0);
        let emptied = self.file.set_len(0).and_then(|()| self.file.rewind());
        emptied.map_err(|source| ImageError::Write { path: self.path.clone(), source })
    }

    /// Gives the blob its name. The digest is the caller's to check.
    pub(in crate::image) fn commit(self) -> Result<(), ImageError> {
        let failed = |source| ImageError::Write { path: self.target.clone(), source };
        self.file.sync_data().map_err(failed)?;
        std::fs::rename(&self.path, &self.target).map_err(failed)
    }
}

fn lock(file: &File, path: &Path) -> io::Result<()> {
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            tracing::info!(path = %path.display(), "waiting for another fcvm that fetches this");
            file.lock()
        }
        locked => locked.map_err(io::Error::from),
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((held.dev(), held.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_begun_is_gone_on_with() {
        let place = tempfile::tempdir().unwrap();
        let (path, target) = (place.path().join("partial"), place.path().join("whole"));
        let open = || PartialBlob::open(path.clone(), target.clone()).unwrap();
        open().unwrap().write(b"hel").unwrap();
        let mut blob = open().unwrap();
        assert_eq!(blob.size(), 3);
        blob.write(b"lo").unwrap();
        assert_eq!(blob.digest(), Digest::of(b"hello"));
        blob.reset().unwrap();
        blob.write(b"bye").unwrap();
        assert_eq!((blob.size(), blob.digest()), (3, Digest::of(b"bye")));
        blob.commit().unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"bye");
        assert!(!path.exists());
        assert!(open().is_none());
        assert!(!path.exists());
    }

    #[test]
    fn who_waits_finds_it_whole() {
        let place = tempfile::tempdir().unwrap();
        let (path, target) = (place.path().join("partial"), place.path().join("whole"));
        let open = || PartialBlob::open(path.clone(), target.clone()).unwrap();
        let mut blob = open().unwrap();
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            blob.write(b"x").unwrap();
            blob.commit().unwrap();
            for other in others {
                assert!(other.join().unwrap().is_none());
            }
        });
        assert!(!path.exists());
    }
}
