//! The superblock, the group descriptors, and how the file system is divided into groups.

use sha2::{Digest as _, Sha256};

use super::{BLOCK, BLOCK_BYTES, Ext4Error, Timestamp, inode};

/// [`BLOCK`], as blocks and inodes are counted.
const BLOCK_U32: u32 = 4096;
/// Blocks in a group, where nothing speaks for fewer: as many as one bitmap has bits.
const GROUP: u32 = 8 * BLOCK_U32;
/// Inodes in a group at most.
const GROUP_INODES: u32 = 8 * BLOCK_U32;
/// The largest file system: 2 TiB. Room for its descriptors is kept free while data is written.
pub(super) const MAX_BLOCKS: u32 = 1 << 29;
const MAX_GROUPS: u32 = MAX_BLOCKS / GROUP;
const DESCRIPTOR: usize = 32;
const DESCRIPTORS: u32 = BLOCK_U32 / 32;
/// Blocks kept free behind the superblock.
pub(super) const RESERVED_DESCRIPTORS: u32 = MAX_GROUPS / DESCRIPTORS;
/// Inodes are numbered from here on; those before it have set uses, of which only the root's matters.
pub(super) const FIRST_INODE: u32 = 11;
pub(super) const ROOT_INODE: u32 = 2;
pub(super) const INODES_IN_BLOCK: u32 = BLOCK_U32 / 256;

/// What a file system is called and known by.
#[derive(Debug, Clone)]
pub struct Options {
    /// The volume label, of at most 16 bytes.
    pub label: String,
    /// What the UUID is derived from.
    pub uuid_seed: Vec<u8>,
    /// When the file system says it was made.
    pub created: Timestamp,
}

/// How a file system is divided into groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Groups {
    pub(super) count: u32,
    pub(super) blocks: u32,
    pub(super) inodes: u32,
    /// Blocks of the whole file system, its bitmaps and tables included.
    pub(super) total: u32,
}

impl Groups {
    /// For `inodes` inodes, `end` blocks of content, of which `data` belong to files, `spare` free
    /// blocks, and the bitmaps and tables these need.
    pub(super) fn plan(inodes: u64, data: u32, end: u32, spare: u64) -> Result<Self, Ext4Error> {
        let too_large = || Ext4Error::TooLarge { limit: u64::from(MAX_BLOCKS) * BLOCK_BYTES };
        // Many small files need more inodes than few large groups hold. The tables alone take a
        // sixteenth of the inodes in blocks, so that some size will do.
        let at_least = u64::from(data).max(inodes.div_ceil(INODES_IN_BLOCK.into()));
        let mut blocks = GROUP;
        while at_least.div_ceil(blocks.into()) * u64::from(GROUP_INODES) < inodes {
            blocks /= 2;
        }
        let mut count = at_least.max(end.into()).div_ceil(blocks.into());
        loop {
            let in_group = inodes.div_ceil(count).next_multiple_of(INODES_IN_BLOCK.into());
            let tables = count * (2 + in_group / u64::from(INODES_IN_BLOCK));
            // Once more groups are needed they stay, for fewer might again be too few.
            let total = (u64::from(end) + tables + spare).max((count - 1) * u64::from(blocks) + 1);
            let needed = total.div_ceil(blocks.into());
            if needed > MAX_GROUPS.into() || total > MAX_BLOCKS.into() {
                return Err(too_large());
            }
            if needed <= count {
                let narrow = |value: u64| u32::try_from(value).map_err(|_| too_large());
                return Ok(Self {
                    count: narrow(count)?,
                    blocks,
                    inodes: narrow(in_group)?,
                    total: narrow(total)?,
                });
            }
            count = needed;
        }
    }

    /// Blocks the descriptors take.
    pub(super) fn descriptor_blocks(&self) -> u32 {
        self.count.div_ceil(DESCRIPTORS)
    }

    /// Blocks of one group's inode table.
    pub(super) fn table_blocks(&self) -> u32 {
        self.inodes / INODES_IN_BLOCK
    }

    /// Blocks of a group; the last may have fewer.
    pub(super) fn range(&self, group: u32) -> std::ops::Range<u32> {
        group * self.blocks..((group + 1) * self.blocks).min(self.total)
    }
}

/// Where a group's tables are, and what is free in it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Descriptor {
    pub(super) block_bitmap: u32,
    pub(super) inode_bitmap: u32,
    pub(super) inode_table: u32,
    pub(super) free_blocks: u32,
    pub(super) free_inodes: u32,
    pub(super) directories: u32,
}

/// The blocks of the group descriptors.
pub(super) fn descriptors(descriptors: &[Descriptor]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(descriptors.len() * DESCRIPTOR);
    let small = |count: u32| u16::try_from(count).expect("a group has at most 32768").to_le_bytes();
    for descriptor in descriptors {
        for block in [descriptor.block_bitmap, descriptor.inode_bitmap, descriptor.inode_table] {
            bytes.extend_from_slice(&block.to_le_bytes());
        }
        for count in [descriptor.free_blocks, descriptor.free_inodes, descriptor.directories] {
            bytes.extend_from_slice(&small(count));
        }
        bytes.resize(bytes.len().next_multiple_of(DESCRIPTOR), 0);
    }
    bytes
}

const EXT_ATTR: u32 = 0x8;
const DIR_INDEX: u32 = 0x20;
const SPARSE_SUPER2: u32 = 0x200;

const FILETYPE: u32 = 0x2;
const EXTENTS: u32 = 0x40;
const FLEX_BG: u32 = 0x200;

const LARGE_FILE: u32 = 0x2;
const HUGE_FILE: u32 = 0x8;
const DIR_NLINK: u32 = 0x20;
const EXTRA_ISIZE: u32 = 0x40;

/// Extended attributes of users and ACLs are on unless mount options say otherwise.
const DEFAULT_MOUNT_OPTIONS: u32 = 0x4 | 0x8;
/// Names are hashed as signed characters, so that no kernel has to decide.
const SIGNED_HASH: u32 = 0x1;
const HALF_MD4: u8 = 1;

/// The first block: a kilobyte of nothing and the superblock. There are no copies of it
/// (`sparse_super2` with none named), so that data is not interrupted.
pub(super) fn encode(options: &Options, groups: &Groups, free_blocks: u32, free_inodes: u32) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[1024 + at..1024 + at + bytes.len()].copy_from_slice(bytes);
    let mut word = |at: usize, value: u32| put(at, &value.to_le_bytes());
    let created = u32::try_from(options.created.seconds.clamp(0, u32::MAX.into())).unwrap_or_default();
    let log_block_size = (BLOCK / 1024).ilog2();
    word(0x00, groups.count * groups.inodes);
    word(0x04, groups.total);
    word(0x0c, free_blocks);
    word(0x10, free_inodes);
    word(0x18, log_block_size);
    word(0x1c, log_block_size);
    word(0x20, groups.blocks);
    word(0x24, groups.blocks);
    word(0x28, groups.inodes);
    word(0x30, created);
    word(0x40, created);
    word(0x4c, 1);
    word(0x54, FIRST_INODE);
    word(0x5c, EXT_ATTR | DIR_INDEX | SPARSE_SUPER2);
    word(0x60, FILETYPE | EXTENTS | FLEX_BG);
    word(0x64, LARGE_FILE | HUGE_FILE | DIR_NLINK | EXTRA_ISIZE);
    word(0x100, DEFAULT_MOUNT_OPTIONS);
    word(0x108, created);
    word(0x160, SIGNED_HASH);
    let mut half = |at: usize, value: u16| put(at, &value.to_le_bytes());
    // Never ask to be checked for having been mounted often.
    half(0x36, u16::MAX);
    half(0x38, 0xef53);
    // Clean; on errors go on.
    half(0x3a, 1);
    half(0x3c, 1);
    half(0x58, inode::SIZE_FIELD);
    half(0x15c, inode::EXTRA);
    half(0x15e, inode::EXTRA);
    put(0x68, &uuid(&options.uuid_seed, b"volume"));
    put(0x78, options.label.as_bytes());
    put(0xec, &uuid(&options.uuid_seed, b"hash"));
    put(0xfc, &[HALF_MD4]);
    // log2 of the groups whose tables lie together.
    put(0x174, &[4]);
    block
}

/// A UUID that depends on nothing but the seed (version 8: of one's own making).
fn uuid(seed: &[u8], purpose: &[u8]) -> [u8; 16] {
    let digest =
        Sha256::new().chain_update(b"fcvm ext4 ").chain_update(purpose).chain_update(seed).finalize();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_all_inodes_and_blocks() {
        for inodes in [11, 1000, 32_768, 32_769, 40_000, 1_000_000, 8_000_000] {
            for end in [200, 32_768, 32_769, 1_000_000, 100_000_000] {
                for spare in [0, 1, 1 << 18] {
                    let groups = Groups::plan(inodes, end / 2, end, spare).unwrap();
                    assert!(u64::from(groups.inodes) * u64::from(groups.count) >= inodes);
                    assert!(groups.inodes <= GROUP_INODES, "{groups:?}");
                    assert_eq!(groups.total.div_ceil(groups.blocks), groups.count);
                    let tables = groups.count * (2 + groups.table_blocks());
                    assert!(u64::from(groups.total) >= u64::from(end) + u64::from(tables) + spare);
                }
            }
        }
        assert!(Groups::plan(11, 0, MAX_BLOCKS, 0).is_err());
    }
}
