//! A memory file that has of the disk only what differs from another snapshot's.
//!
//! ```text
//!  the other one's file -- reflink --> memory.shared     all of it shared
//!  memory.bin -- what differs -------> memory.shared     as reflinks, too
//!  memory.shared -- rename ----------> memory.bin
//! ```
//! Both are whole files: what they share is the file system's affair, and either may go without the other. Since
//! contents are compared, whatever the other snapshot is of, the file is right; how much is shared tells
//! whether that was a good choice.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

use rustix::{
    fs::{SeekFrom, ioctl_ficlone, seek},
    io::Errno,
};

use super::{BaseRecord, Contents, MEMORY, Snapshot, SnapshotError, blocks};

/// What is compared, and shared or not, at a time. Less would share more, in more extents: those cost time
/// whenever the file is copied.
const UNIT: u64 = 4 * blocks::BLOCK_LENGTH;
/// The file on its way.
const SHARED: &str = "memory.shared";

/// A memory file that is going to share what it can.
#[derive(Debug)]
pub(super) struct Difference {
    base: Snapshot,
    file: File,
}

impl Difference {
    /// Begins with all of the other one's memory.
    ///
    /// # Errors
    /// Where it has none, or the file system cannot share anything.
    pub(super) fn begin(base: Snapshot, directory: &Path) -> Result<Self, SnapshotError> {
        let tag = || base.tag().clone();
        if base.manifest().contents != Contents::Machine {
            return Err(SnapshotError::NoMemory { tag: tag() });
        }
        base.check_files()?;
        let (path, source) = (directory.join(SHARED), base.path(MEMORY));
        let from = File::open(&source).map_err(SnapshotError::io("read", &source))?;
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(SnapshotError::io("write", &path))?;
        match ioctl_ficlone(&file, &from) {
            Ok(()) => Ok(Self { base, file }),
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::INVAL | Errno::NOSYS) => {
                Err(SnapshotError::NotShared { path: directory.to_owned() })
            }
            Err(error) => Err(SnapshotError::io("write", &path)(error.into())),
        }
    }

    /// Becomes the memory file that has been written meanwhile.
    ///
    /// # Errors
    /// Where that cannot be read, or this one not be written.
    pub(super) fn end(self, directory: &Path) -> Result<BaseRecord, SnapshotError> {
        let path = directory.join(MEMORY);
        let merge = || {
            let written = File::open(&path)?;
            let length = written.metadata()?.len();
            self.file.set_len(length)?;
            let shared_bytes = merge(&written, &self.file, length)?;
            fs::set_permissions(directory.join(SHARED), written.metadata()?.permissions())?;
            fs::rename(directory.join(SHARED), &path)?;
            Ok(shared_bytes)
        };
        let shared_bytes = merge().map_err(SnapshotError::io("write", &path))?;
        let Self { base, .. } = self;
        Ok(BaseRecord { tag: base.tag().clone(), id: base.manifest().id.clone(), shared_bytes })
    }
}

/// Makes one file the same as another one, where they differ; how many bytes other than zeros did not.
fn merge(from: &File, to: &File, length: u64) -> io::Result<u64> {
    let unit = usize::try_from(UNIT).map_err(io::Error::other)?;
    let (mut new, mut old) = (vec![0; unit], vec![0; unit]);
    let (mut at, mut same) = (0, 0);
    while at < length {
        let data = next_data(from, at, length)?.min(next_data(to, at, length)?);
        let start = (data - data % UNIT).max(at);
        if start >= length {
            break;
        }
        let end = (start + UNIT).min(length);
        let size = usize::try_from(end - start).map_err(io::Error::other)?;
        let (new, old) = (&mut new[..size], &mut old[..size]);
        from.read_exact_at(new, start)?;
        to.read_exact_at(old, start)?;
        if new != old {
            // Written, and not taken over as a reflink: of a file that goes, that would keep all around it.
            to.write_all_at(new, start)?;
        } else if new.iter().any(|byte| *byte != 0) {
            same += end - start;
        }
        at = end;
    }
    Ok(same)
}

/// Where the next data of a file are, from there on.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<u64> {
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) => Ok(data.min(length)),
        Err(Errno::NXIO) => Ok(length),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_taken_and_the_rest_left() {
        const LENGTH: u64 = (1 << 20) + 5;
        let file = |at: &[(u64, u8)]| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(LENGTH).unwrap();
            for (at, byte) in at {
                file.write_all_at(&[*byte; 100], *at).unwrap();
            }
            file
        };
        // The same; another; only there, only here; two in a row.
        let to = file(&[(10, 1), (3 * UNIT, 2), (5 * UNIT, 3), (LENGTH - 100, 9)]);
        let from = file(&[
            (10, 1),
            (3 * UNIT, 4),
            (7 * UNIT - 50, 5),
            (20 * UNIT, 6),
            (21 * UNIT, 7),
            (LENGTH - 100, 8),
        ]);
        assert_eq!(merge(&from, &to, LENGTH).unwrap(), UNIT);
        let content = |file: &File| {
            let mut bytes = vec![0; usize::try_from(LENGTH).unwrap()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            bytes
        };
        assert!(content(&from) == content(&to));
        assert_eq!(merge(&from, &from, LENGTH).unwrap() % UNIT, 5, "the last one is short");
    }
}
