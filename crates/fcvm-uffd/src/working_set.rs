//! What the first VM wanted, in its order: a file beside the memory.
//!
//! ```text
//! "FCVMWSET"  version u32  count u32  fingerprint [32]  count × (offset u64, length u64)  sha256 of all that [32]
//! ```
//! Numbers are little-endian, offsets and lengths in bytes of the memory file. The file is only advice:
//! what is in a page always comes from the memory. One that is damaged, of another version or of another
//! memory is not used.

use std::{
    io::{self, Read as _, Write as _},
    ops::Range,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{Memory, memory::SMALL};

const MAGIC: [u8; 8] = *b"FCVMWSET";
const VERSION: u32 = 1;
const HEADER: usize = 48;
const ENTRY: usize = 16;
const CHECKSUM: usize = 32;
/// More ranges than that are cut off: 16 MiB of them.
const MAX_RANGES: usize = 1 << 20;

/// Ranges of a memory file in the order in which a VM wanted them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkingSet {
    ranges: Vec<Range<u64>>,
}

/// A working set cannot be used or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkingSetError {
    /// The file cannot be read or written.
    #[error("failed to {what} working set `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It is not what was written.
    #[error("working set `{path}` is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It is of another version of this library.
    #[error("working set `{path}` has format {found}, and not {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: u32,
    },
    /// It was made from another memory.
    #[error("working set `{path}` is of another memory")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
}

impl WorkingSet {
    /// The ranges, in bytes of the memory file.
    #[must_use]
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// How many bytes of the memory are in it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Adds what was wanted next.
    pub(crate) fn push(&mut self, range: Range<u64>) {
        if let Some(last) = self.ranges.last_mut()
            && last.end == range.start
        {
            last.end = range.end;
        } else if self.ranges.len() < MAX_RANGES {
            self.ranges.push(range);
        }
    }

    /// Reads the file of this memory.
    ///
    /// # Errors
    /// It is not there, damaged, or not of this memory.
    pub fn load(path: &Path, memory: &Memory) -> Result<Self, WorkingSetError> {
        let failed = |source| WorkingSetError::Io { what: "read", path: path.to_owned(), source };
        let most = HEADER + MAX_RANGES * ENTRY + CHECKSUM;
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(most as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        let damaged = || WorkingSetError::Damaged { path: path.to_owned() };
        if bytes.len() > most || !bytes.starts_with(&MAGIC) {
            return Err(damaged());
        }
        let split = bytes.len().checked_sub(CHECKSUM).filter(|body| *body >= HEADER).ok_or_else(damaged)?;
        let (body, checksum) = bytes.split_at(split);
        if *Sha256::digest(body) != *checksum {
            return Err(damaged());
        }
        let version = u32::from_le_bytes([body[8], body[9], body[10], body[11]]);
        if version != VERSION {
            return Err(WorkingSetError::Version { path: path.to_owned(), found: version });
        }
        if body[16..HEADER] != *memory.fingerprint() {
            return Err(WorkingSetError::Foreign { path: path.to_owned() });
        }
        let count = u32::from_le_bytes([body[12], body[13], body[14], body[15]]) as usize;
        let (entries, rest) = body[HEADER..].as_chunks::<ENTRY>();
        let ranges: Option<Vec<_>> = entries.iter().map(|entry| parse(*entry, memory.len())).collect();
        match ranges {
            Some(ranges) if rest.is_empty() && ranges.len() == count => Ok(Self { ranges }),
            _ => Err(damaged()),
        }
    }

    /// Writes the file of this memory: under another name at first, so that it is never there in part.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, path: &Path, memory: &Memory) -> Result<(), WorkingSetError> {
        let mut bytes = Vec::with_capacity(HEADER + self.ranges.len() * ENTRY + CHECKSUM);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(u32::try_from(self.ranges.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(memory.fingerprint());
        for range in &self.ranges {
            bytes.extend(range.start.to_le_bytes());
            bytes.extend((range.end - range.start).to_le_bytes());
        }
        bytes.extend(Sha256::digest(&bytes));
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let write = || {
            let mut file = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
            file.write_all(&bytes)?;
            file.persist(path).map_err(|error| error.error)
        };
        write().map_err(|source| WorkingSetError::Io { what: "write", path: path.to_owned(), source })?;
        Ok(())
    }
}

fn parse(entry: [u8; ENTRY], memory: u64) -> Option<Range<u64>> {
    let number = |at: usize| entry[at..at + 8].try_into().map(u64::from_le_bytes).ok();
    let (start, len) = (number(0)?, number(8)?);
    let end = start.checked_add(len).filter(|end| *end <= memory)?;
    let pages = len > 0 && start.is_multiple_of(SMALL) && len.is_multiple_of(SMALL);
    pages.then_some(start..end)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Kept {
        directory: tempfile::TempDir,
        memory: Memory,
    }

    impl Kept {
        fn new(first: u8) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("memory");
            fs::write(&path, vec![first; 8 * SMALL as usize]).unwrap();
            Self { memory: Memory::open(path).unwrap(), directory }
        }

        fn path(&self) -> PathBuf {
            self.directory.path().join("memory.ws")
        }
    }

    fn set() -> WorkingSet {
        let mut set = WorkingSet::default();
        for range in [0x3000..0x4000, 0x4000..0x6000, 0..0x1000] {
            set.push(range);
        }
        set
    }

    #[test]
    fn what_is_kept_is_found_again_and_neighbours_are_one() {
        let kept = Kept::new(1);
        set().save(&kept.path(), &kept.memory).unwrap();
        let loaded = WorkingSet::load(&kept.path(), &kept.memory).unwrap();
        assert_eq!(loaded.ranges(), [0x3000..0x6000, 0..0x1000]);
        assert_eq!(loaded.bytes(), 0x4000);
        assert_eq!(fs::read_dir(kept.directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn any_damage_is_noticed() {
        let kept = Kept::new(1);
        set().save(&kept.path(), &kept.memory).unwrap();
        let whole = fs::read(kept.path()).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 4;
            fs::write(kept.path(), &bytes).unwrap();
            assert!(matches!(
                WorkingSet::load(&kept.path(), &kept.memory),
                Err(WorkingSetError::Damaged { .. })
            ));
            fs::write(kept.path(), &whole[..at]).unwrap();
            assert!(matches!(
                WorkingSet::load(&kept.path(), &kept.memory),
                Err(WorkingSetError::Damaged { .. })
            ));
        }
    }

    /// The file with other bytes and the checksum of these.
    fn forge(kept: &Kept, change: impl FnOnce(&mut Vec<u8>)) -> WorkingSetError {
        set().save(&kept.path(), &kept.memory).unwrap();
        let mut bytes = fs::read(kept.path()).unwrap();
        bytes.truncate(bytes.len() - CHECKSUM);
        change(&mut bytes);
        bytes.extend(Sha256::digest(&bytes));
        fs::write(kept.path(), &bytes).unwrap();
        WorkingSet::load(&kept.path(), &kept.memory).unwrap_err()
    }

    #[test]
    fn what_has_a_good_checksum_is_checked_all_the_same() {
        let kept = Kept::new(1);
        assert!(matches!(forge(&kept, |bytes| bytes[8] = 2), WorkingSetError::Version { found: 2, .. }));
        assert!(matches!(forge(&kept, |bytes| bytes[12] = 3), WorkingSetError::Damaged { .. }));
        assert!(matches!(forge(&kept, |bytes| bytes.push(0)), WorkingSetError::Damaged { .. }));
        assert!(matches!(forge(&kept, |bytes| bytes[HEADER] = 1), WorkingSetError::Damaged { .. }));
        assert!(matches!(forge(&kept, |bytes| bytes[HEADER + 7] = 255), WorkingSetError::Damaged { .. }));
        assert!(matches!(forge(&kept, |bytes| bytes[HEADER + 9] = 255), WorkingSetError::Damaged { .. }));
    }

    #[test]
    fn another_memory_has_another_working_set() {
        let (kept, other) = (Kept::new(1), Kept::new(2));
        set().save(&kept.path(), &kept.memory).unwrap();
        assert!(matches!(
            WorkingSet::load(&kept.path(), &other.memory),
            Err(WorkingSetError::Foreign { .. })
        ));
    }

    /// These bytes are on disks. If this fails you changed the format: raise `VERSION`.
    #[test]
    fn version_1_bytes_are_frozen() {
        let kept = Kept::new(1);
        let mut set = WorkingSet::default();
        set.push(0x1000..0x3000);
        set.save(&kept.path(), &kept.memory).unwrap();
        let bytes = fs::read(kept.path()).unwrap();
        assert_eq!(bytes[..16], *b"FCVMWSET\x01\0\0\0\x01\0\0\0");
        assert_eq!(bytes[48..64], *b"\0\x10\0\0\0\0\0\0\0\x20\0\0\0\0\0\0");
        assert_eq!(bytes.len(), 96);
    }
}
