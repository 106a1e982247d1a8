//! Which blocks are in use.

use std::collections::{BTreeMap, BTreeSet};

use super::{BLOCK_BYTES, Ext4Error, superblock::MAX_BLOCKS};

/// Every block below `end` is in use, except those in `free`.
#[derive(Debug)]
pub(super) struct Space {
    end: u32,
    /// Start and length of each free run; no two touch.
    free: BTreeMap<u32, u32>,
    /// The same as (length, start), to find the smallest that will do.
    by_length: BTreeSet<(u32, u32)>,
}

/// Blocks taken for a file whose size is known only roughly.
#[derive(Debug)]
pub(super) struct Run {
    next: u32,
    /// Where the run ends; `None` where it is at the end of the image and may grow.
    limit: Option<u32>,
}

impl Space {
    /// All blocks below `end` are in use.
    pub(super) fn new(end: u32) -> Self {
        Self { end, free: BTreeMap::new(), by_length: BTreeSet::new() }
    }

    /// The first block that nothing was put at or behind.
    pub(super) fn end(&self) -> u32 {
        self.end
    }

    /// Free runs below the end: start and length, in order.
    pub(super) fn free_runs(&self) -> impl Iterator<Item = (u32, u32)> {
        self.free.iter().map(|(start, length)| (*start, *length))
    }

    /// Takes `count` blocks in one run.
    pub(super) fn take(&mut self, count: u32) -> Result<u32, Ext4Error> {
        if let Some((length, start)) = self.by_length.range((count, 0)..).next().copied() {
            self.by_length.remove(&(length, start));
            self.free.remove(&start);
            if length > count {
                self.free.insert(start + count, length - count);
                self.by_length.insert((length - count, start + count));
            }
            return Ok(start);
        }
        self.append(count)
    }

    /// Takes `count` blocks at the end.
    pub(super) fn append(&mut self, count: u32) -> Result<u32, Ext4Error> {
        let start = self.end;
        self.end = start.checked_add(count).filter(|end| *end <= MAX_BLOCKS).ok_or(TOO_LARGE)?;
        Ok(start)
    }

    /// Starts a run that may come to `most` blocks. Nothing else may be taken until it is [closed](Self::close).
    pub(super) fn open(&mut self, most: u64) -> Result<Run, Ext4Error> {
        match u32::try_from(most) {
            Ok(most) if self.by_length.range((most, 0)..).next().is_some() => {
                let start = self.take(most)?;
                Ok(Run { next: start, limit: Some(start + most) })
            }
            _ => Ok(Run { next: self.end, limit: None }),
        }
    }

    /// The next block of a run.
    pub(super) fn next(&mut self, run: &mut Run) -> Result<u32, Ext4Error> {
        let block = run.next;
        if block >= run.limit.unwrap_or(MAX_BLOCKS) {
            return Err(TOO_LARGE);
        }
        run.next += 1;
        if run.limit.is_none() {
            self.end = run.next;
        }
        Ok(block)
    }

    /// Gives back what a run did not need.
    pub(super) fn close(&mut self, run: &Run) {
        if let Some(limit) = run.limit
            && limit > run.next
        {
            self.release(run.next, limit - run.next);
        }
    }

    /// Makes blocks free. Returns the whole free run they are now part of.
    pub(super) fn release(&mut self, start: u32, count: u32) -> (u32, u32) {
        let (mut start, mut count) = (start, count);
        if let Some((&before, &length)) = self.free.range(..start).next_back()
            && before + length == start
        {
            self.forget(before, length);
            start = before;
            count += length;
        }
        if let Some(&length) = self.free.get(&(start + count)) {
            self.forget(start + count, length);
            count += length;
        }
        self.free.insert(start, count);
        self.by_length.insert((count, start));
        (start, count)
    }

    fn forget(&mut self, start: u32, length: u32) {
        self.free.remove(&start);
        self.by_length.remove(&(length, start));
    }
}

const TOO_LARGE: Ext4Error = Ext4Error::TooLarge { limit: MAX_BLOCKS as u64 * BLOCK_BYTES };

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_blocks_join_and_are_taken_again() {
        let mut space = Space::new(10);
        assert_eq!(space.take(5).unwrap(), 10);
        assert_eq!(space.take(5).unwrap(), 15);
        space.release(10, 2);
        space.release(14, 3);
        assert_eq!(space.release(12, 2), (10, 7));
        assert_eq!(space.free_runs().collect::<Vec<_>>(), [(10, 7)]);
        assert_eq!(space.take(8).unwrap(), 20);
        assert_eq!(space.take(6).unwrap(), 10);
        assert_eq!(space.free_runs().collect::<Vec<_>>(), [(16, 1)]);
    }

    #[test]
    fn a_run_gives_back_what_it_did_not_need() {
        let mut space = Space::new(10);
        space.take(10).unwrap();
        space.release(12, 4);
        let mut run = space.open(3).unwrap();
        assert_eq!(space.next(&mut run).unwrap(), 12);
        space.close(&run);
        assert_eq!(space.free_runs().collect::<Vec<_>>(), [(13, 3)]);
        let mut run = space.open(4).unwrap();
        assert_eq!(space.next(&mut run).unwrap(), 20);
        space.close(&run);
        assert_eq!(space.end(), 21);
    }
}
