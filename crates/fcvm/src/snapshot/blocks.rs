//! Files by blocks: where they have data, and which of their blocks are not zeros alone.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;
/// The same, as lengths of files are counted.
pub(super) const BLOCK_LENGTH: u64 = BLOCK as u64;
/// Bytes that are read at once: whole blocks.
pub(super) const CHUNK: usize = 256 * BLOCK;

const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// Bytes of a file that are no hole: whole blocks, but for the end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) start: u64,
    /// Behind its last byte.
    pub(super) end: u64,
}

impl Extent {
    pub(super) fn length(self) -> u64 {
        self.end - self.start
    }
}

/// Where the first `length` bytes of a file have data, in order.
pub(super) fn extents(file: &File, length: u64) -> io::Result<Vec<Extent>> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) if start < length => start,
            // Nothing but a hole up to the end.
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?;
        if end <= start {
            return Err(io::Error::other("it changes while it is read"));
        }
        at = end;
        // A file system with smaller blocks has holes within ours.
        let start = start - start % BLOCK_LENGTH;
        let end = end.next_multiple_of(BLOCK_LENGTH).min(length);
        match extents.last_mut() {
            Some(last) if start <= last.end => last.end = last.end.max(end),
            _ => extents.push(Extent { start, end }),
        }
    }
    Ok(extents)
}

/// Whether a block, or the part of one that a file ends with, is zeros alone.
pub(super) fn is_zero(block: &[u8]) -> bool {
    *block == ZEROS[..block.len()]
}

/// Gives each block of the first `length` bytes that is not zeros alone, in order, with its number. The
/// last one may be short.
pub(super) fn scan(
    file: &File,
    length: u64,
    mut visit: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    for extent in extents(file, length)? {
        let mut at = extent.start;
        while at < extent.end {
            let wanted = usize::try_from(extent.end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = &mut buffer[..wanted];
            file.read_exact_at(chunk, at)?;
            for (number, block) in (at / BLOCK_LENGTH..).zip(chunk.chunks(BLOCK)) {
                if !is_zero(block) {
                    visit(number, block)?;
                }
            }
            at += wanted as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_with_data_are_found_and_zeros_passed_over() {
        let file = tempfile::tempfile().unwrap();
        let length = (1 << 30) + 10;
        file.set_len(length).unwrap();
        // Zeros that are written, data in the middle of a block, and the end.
        file.write_all_at(&[0; 3 * BLOCK], 0).unwrap();
        file.write_all_at(b"x", (1 << 20) + 100).unwrap();
        file.write_all_at(b"end", length - 3).unwrap();
        let mut found = Vec::new();
        scan(&file, length, |number, block| {
            found.push((number, block.len(), block.iter().filter(|byte| **byte != 0).count()));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [(256, BLOCK, 1), (1 << 18, 10, 3)]);
        let extents = extents(&file, length).unwrap();
        assert!(extents.iter().map(|extent| extent.length()).sum::<u64>() < 1 << 20, "{extents:?}");
        assert!(extents.iter().all(|extent| extent.start % BLOCK_LENGTH == 0), "{extents:?}");
        assert_eq!(extents.last().unwrap().end, length);
    }
}
