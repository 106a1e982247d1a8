//! The image file as blocks, with neighbouring writes put together.

use std::{fs::File, os::unix::fs::FileExt};

use rustix::fs::FallocateFlags;

use super::{BLOCK, BLOCK_BYTES, Ext4Error};

/// How much is gathered before it is written.
const BUFFER: usize = 1 << 20;

/// The image, block by block.
#[derive(Debug)]
pub(super) struct BlockFile {
    file: File,
    /// Blocks from `start` on, not written yet.
    buffer: Vec<u8>,
    start: u32,
}

impl BlockFile {
    pub(super) fn new(file: File) -> Self {
        Self { file, buffer: Vec::with_capacity(BUFFER), start: 0 }
    }

    /// Writes whole blocks from `block` on; the last is filled up with zeros.
    pub(super) fn write(&mut self, block: u32, bytes: &[u8]) -> Result<(), Ext4Error> {
        let next = u64::from(self.start) + (self.buffer.len() / BLOCK) as u64;
        if self.buffer.len() + bytes.len() > BUFFER || next != u64::from(block) {
            self.flush()?;
            self.start = block;
        }
        self.buffer.extend_from_slice(bytes);
        self.buffer.resize(self.buffer.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), Ext4Error> {
        let offset = u64::from(self.start) * BLOCK_BYTES;
        self.file.write_all_at(&self.buffer, offset).map_err(Ext4Error::write)?;
        self.buffer.clear();
        Ok(())
    }

    /// Gives blocks back to the host's file system, where it can take them.
    pub(super) fn punch(&mut self, block: u32, count: u32) -> Result<(), Ext4Error> {
        self.flush()?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let (offset, length) = (u64::from(block) * BLOCK_BYTES, u64::from(count) * BLOCK_BYTES);
        // Without holes the image is as good, only larger.
        if let Err(error) = rustix::fs::fallocate(&self.file, flags, offset, length) {
            tracing::trace!(%error, block, count, "cannot punch a hole");
        }
        Ok(())
    }

    /// Writes all there is and makes the image `blocks` long.
    pub(super) fn finish(mut self, blocks: u32) -> Result<File, Ext4Error> {
        self.flush()?;
        self.file.set_len(u64::from(blocks) * BLOCK_BYTES).map_err(Ext4Error::write)?;
        Ok(self.file)
    }
}
