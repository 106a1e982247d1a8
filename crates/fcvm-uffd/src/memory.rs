//! The memory of a snapshot: a file that does not change.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use crate::{MemoryError, bitmap::Bitmap, sys::Mapping};

/// Bytes of a small page, in which the file's holes are known.
pub(crate) const SMALL: u64 = 4096;
/// Bytes of a huge page.
pub(crate) const HUGE: u64 = 2 << 20;

/// How many pages of a file its fingerprint is made from.
const SAMPLES: u64 = 64;

/// A snapshot's memory file, opened and mapped for reading; its holes are known.
///
/// The file must not change while it is served. If it is cut off all the same, VMs that want what is gone
/// are killed with a reason; this process gets no SIGBUS.
#[derive(Debug)]
pub struct Memory {
    path: PathBuf,
    file: File,
    len: u64,
    version: Version,
    mapping: Mapping,
    /// What to copy from into huge pages in holes.
    zeros: Mapping,
    /// Small pages with something in them.
    data: Bitmap,
    fingerprint: [u8; 32],
}

/// What is different after a file was written.
#[derive(Debug, PartialEq, Eq)]
struct Version {
    len: u64,
    modified: (i64, i64),
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self { len: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

impl Memory {
    /// Opens a memory file.
    ///
    /// # Errors
    /// It cannot be opened, looked at or mapped, or its length is not a number of pages of 4096 bytes.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, MemoryError> {
        let path = path.into();
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| MemoryError::Io { what, path, source }
        };
        let file = File::open(&path).map_err(failed("open", &path))?;
        let metadata = file.metadata().map_err(failed("look at", &path))?;
        let len = metadata.len();
        let whole = usize::try_from(len).ok().filter(|_| len > 0 && len.is_multiple_of(SMALL));
        let Some(bytes) = whole else { return Err(MemoryError::Length { path, len }) };
        let map =
            |mapping: Result<Mapping, Errno>| mapping.map_err(io::Error::from).map_err(failed("map", &path));
        let mapping = map(Mapping::of_file(&file, bytes))?;
        let zeros = map(Mapping::of_zeros(HUGE as usize))?;
        let data = find_data(&file, len).map_err(failed("find the holes of", &path))?;
        let fingerprint = fingerprint(&file, len).map_err(failed("read", &path))?;
        Ok(Self { path, file, len, version: Version::of(&metadata), mapping, zeros, data, fingerprint })
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Never: there is no memory without pages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its path, as it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes in it that are not in holes.
    #[must_use]
    pub fn data_bytes(&self) -> u64 {
        let pages = (0..self.len / SMALL).filter(|page| self.data.get(*page as usize));
        pages.count() as u64 * SMALL
    }

    /// Says whether the file is still as it was when it was opened.
    ///
    /// # Errors
    /// It is not, or cannot be looked at.
    pub fn check(&self) -> Result<(), MemoryError> {
        let metadata = self.file.metadata().map_err(|source| MemoryError::Io {
            what: "look at",
            path: self.path.clone(),
            source,
        })?;
        if Version::of(&metadata) == self.version {
            Ok(())
        } else {
            Err(MemoryError::Changed { path: self.path.clone() })
        }
    }

    /// Tells this memory from another's: its length and a sample of what is in it.
    pub(crate) fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    pub(crate) fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub(crate) fn zeros(&self) -> &Mapping {
        &self.zeros
    }

    /// Whether there is anything in a page.
    pub(crate) fn has_data(&self, page: usize, page_size: u64) -> bool {
        let small = (page_size / SMALL) as usize;
        if small == 1 { self.data.get(page) } else { self.data.any(page * small..(page + 1) * small) }
    }
}

/// Asks the file system which parts of a file are not holes.
fn find_data(file: &File, len: u64) -> io::Result<Bitmap> {
    let mut data = Bitmap::new((len / SMALL) as usize);
    let mut at = 0;
    while at < len {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only a hole follows.
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?;
        data.set((start / SMALL) as usize..end.div_ceil(SMALL) as usize);
        // A file that changes beneath us must not keep us here.
        at = end.max(at + SMALL);
    }
    Ok(data)
}

fn fingerprint(file: &File, len: u64) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    hash.update(len.to_le_bytes());
    let pages = len / SMALL;
    let mut page = [0; SMALL as usize];
    for sample in 0..SAMPLES.min(pages) {
        file.read_exact_at(&mut page, pages * sample / SAMPLES.min(pages) * SMALL)?;
        hash.update(page);
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse(pages: u64, data: &[u64]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("memory");
        let file = File::create(&path).unwrap();
        file.set_len(pages * SMALL).unwrap();
        for page in data {
            file.write_all_at(&[7; SMALL as usize], page * SMALL).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn holes_are_found() {
        let (_directory, path) = sparse(2048, &[0, 5, 6, 1600]);
        let memory = Memory::open(&path).unwrap();
        let found: Vec<_> = (0..2048).filter(|page| memory.has_data(*page, SMALL)).collect();
        assert_eq!(found, [0, 5, 6, 1600]);
        assert_eq!(memory.data_bytes(), 4 * SMALL);
        let huge: Vec<_> = (0..4).filter(|page| memory.has_data(*page, HUGE)).collect();
        assert_eq!(huge, [0, 3]);
    }

    #[test]
    fn a_length_of_no_pages_is_refused() {
        let (_directory, path) = sparse(1, &[]);
        for len in [0, 1, SMALL - 1, SMALL + 1] {
            File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
            assert!(
                matches!(Memory::open(&path), Err(MemoryError::Length { len: found, .. }) if found == len)
            );
        }
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let (_directory, path) = sparse(4, &[1]);
        let memory = Memory::open(&path).unwrap();
        memory.check().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(SMALL).unwrap();
        assert!(matches!(memory.check(), Err(MemoryError::Changed { .. })));
    }

    #[test]
    fn a_fingerprint_tells_contents_and_lengths_apart() {
        let fingerprint = |pages, data: &[u64]| {
            let (_directory, path) = sparse(pages, data);
            *Memory::open(&path).unwrap().fingerprint()
        };
        assert_eq!(fingerprint(64, &[3]), fingerprint(64, &[3]));
        assert_ne!(fingerprint(64, &[3]), fingerprint(64, &[4]));
        assert_ne!(fingerprint(64, &[3]), fingerprint(65, &[3]));
    }
}
