//! The digest of a snapshot's file: the same with holes as with zeros, and none of them read.

use std::{
    fs::File,
    io::{self, Write as _},
};

use super::blocks::{self, BLOCK};
use crate::hash::{Digest, Hasher};

/// Computes the digest that [`FileRecord`](super::FileRecord) has, of blocks as they come.
#[derive(Debug, Default)]
pub(super) struct BlockHasher(Hasher);

impl BlockHasher {
    /// Takes a block that has other bytes than zeros; the last one of a file may be short. Their numbers
    /// go up.
    pub(super) fn add(&mut self, number: u64, block: &[u8]) -> io::Result<()> {
        self.0.write_all(&number.to_le_bytes())?;
        self.0.write_all(block)?;
        if block.len() < BLOCK {
            self.0.write_all(&[0; BLOCK][block.len()..])?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Digest {
        self.0.finish()
    }
}

/// The digest of the first `length` bytes of a file.
///
/// # Errors
/// Where it cannot be read.
pub(super) fn of_file(file: &File, length: u64) -> io::Result<Digest> {
    let mut hasher = BlockHasher::default();
    blocks::scan(file, length, |number, block| hasher.add(number, block))?;
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn digest(write: impl FnOnce(&File)) -> Digest {
        let file = tempfile::tempfile().unwrap();
        write(&file);
        of_file(&file, file.metadata().unwrap().len()).unwrap()
    }

    #[test]
    fn it_is_of_numbers_and_blocks() {
        let mut expected = Vec::new();
        expected.extend(3_u64.to_le_bytes());
        expected.extend([b"abc".as_slice(), &[0; BLOCK - 3]].concat());
        expected.extend(600_u64.to_le_bytes());
        expected.extend([b"end".as_slice(), &[0; BLOCK - 3]].concat());
        let found = digest(|file| {
            file.write_all_at(b"abc", 3 * BLOCK as u64).unwrap();
            file.write_all_at(b"end", 600 * BLOCK as u64).unwrap();
        });
        assert_eq!(found, Digest::of(&expected));
        assert_eq!(digest(|_| ()), Digest::of(b""));
    }

    #[test]
    fn holes_and_zeros_are_the_same_and_places_are_not() {
        let with = |zeros: usize, at: u64| {
            digest(|file| {
                file.write_all_at(&vec![0; zeros], 0).unwrap();
                file.write_all_at(b"data", at).unwrap();
                file.set_len(8 << 20).unwrap();
            })
        };
        let at = 5 << 20;
        assert_eq!(with(0, at), with(3 << 20, at));
        assert_ne!(with(0, at), with(0, at + BLOCK as u64));
        assert_ne!(with(0, at), with(0, at + 1));
    }
}
