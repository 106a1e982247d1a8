//! Maps of sparse files.

use super::{
    TarError,
    header::{BLOCK, number},
};
use crate::storage::ext4::Segment;

/// More segments than any archiver writes for a file worth having in an image.
const MAX_SEGMENTS: usize = 1 << 20;

/// A map that grows piece by piece.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) segments: Vec<Segment>,
}

impl Map {
    pub(super) fn push(&mut self, segment: Segment) -> Result<(), TarError> {
        if self.segments.len() == MAX_SEGMENTS {
            return Err(TarError::SparseTooLong { limit: MAX_SEGMENTS });
        }
        self.segments.push(segment);
        Ok(())
    }

    /// Adds entries of an old GNU header: two fields of twelve bytes each; an empty one is the last.
    pub(super) fn push_gnu(&mut self, entries: &[u8]) -> Result<(), TarError> {
        let field = |bytes| number(bytes).and_then(|value| u64::try_from(value).ok()).ok_or(TarError::Sparse);
        for entry in entries.as_chunks::<24>().0 {
            if entry[0] == 0 {
                break;
            }
            self.push(Segment { offset: field(&entry[..12])?, length: field(&entry[12..])? })?;
        }
        Ok(())
    }

    /// Adds the entries of a block that continues an old GNU header; says whether another follows.
    pub(super) fn push_continuation(&mut self, block: &[u8; BLOCK]) -> Result<bool, TarError> {
        self.push_gnu(&block[..21 * 24])?;
        Ok(block[504] != 0)
    }
}
