//! Directories as ext4 stores them: blocks of records.

use super::{BLOCK, Kind, Special};

/// A name in a directory.
pub(super) struct Record<'a> {
    pub(super) inode: u32,
    pub(super) kind: Kind,
    pub(super) name: &'a [u8],
}

const HEADER: usize = 8;

fn length(name: usize) -> usize {
    (HEADER + name).next_multiple_of(4)
}

/// Lays records out in blocks; a record's length reaches to the next, or to the end of its block.
pub(super) fn encode<'a>(records: impl Iterator<Item = Record<'a>>) -> Vec<u8> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut last = 0;
    for record in records {
        let needed = length(record.name.len());
        let used = bytes.len() % BLOCK;
        if used != 0 && used + needed > BLOCK {
            close_block(&mut bytes, last);
        }
        last = bytes.len();
        bytes.extend_from_slice(&record.inode.to_le_bytes());
        bytes.extend_from_slice(&rec_len(needed));
        bytes.push(u8::try_from(record.name.len()).expect("names have at most 255 bytes"));
        bytes.push(type_code(record.kind));
        bytes.extend_from_slice(record.name);
        bytes.resize(last + needed, 0);
    }
    close_block(&mut bytes, last);
    bytes
}

/// How many blocks names of these lengths come to, `.` and `..` included.
pub(super) fn blocks(names: impl Iterator<Item = usize>) -> u32 {
    let (mut blocks, mut used) = (1_u32, 2 * length(2));
    for name in names {
        if used + length(name) > BLOCK {
            blocks = blocks.saturating_add(1);
            used = 0;
        }
        used += length(name);
    }
    blocks
}

fn close_block(bytes: &mut Vec<u8>, last: usize) {
    let end = bytes.len().next_multiple_of(BLOCK);
    bytes[last + 4..last + 6].copy_from_slice(&rec_len(end - last));
    bytes.resize(end, 0);
}

fn rec_len(length: usize) -> [u8; 2] {
    u16::try_from(length).expect("a record is within a block").to_le_bytes()
}

fn type_code(kind: Kind) -> u8 {
    match kind {
        Kind::File => 1,
        Kind::Directory => 2,
        Kind::Special(Special::CharDevice { .. }) => 3,
        Kind::Special(Special::BlockDevice { .. }) => 4,
        Kind::Special(Special::Fifo) => 5,
        Kind::Special(Special::Socket) => 6,
        Kind::Symlink => 7,
    }
}
