//! Where a file's blocks are: extents, and the trees ext4 keeps them in.

use super::{BLOCK, Ext4Error};

/// Neighbouring blocks of a file that are neighbours in the image as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// The first block, counted in the file.
    pub(super) logical: u32,
    /// The first block, counted in the image.
    pub(super) physical: u32,
    /// How many blocks.
    pub(super) length: u32,
}

/// The longest extent.
const MAX_LENGTH: u32 = 1 << 15;
const MAGIC: u16 = 0xf30a;
const ENTRY: usize = 12;
/// Entries in an inode, and in a block: the header takes the room of one.
const IN_INODE: usize = 4;
const IN_BLOCK: usize = BLOCK / ENTRY - 1;

/// The part of an inode that says where the content is.
pub(super) type Root = [u8; 60];

/// Adds a block behind the last one, as part of its extent where it can be.
pub(super) fn push(extents: &mut Vec<Extent>, logical: u32, physical: u32) {
    if let Some(last) = extents.last_mut()
        && last.length < MAX_LENGTH
        && last.logical + last.length == logical
        && last.physical + last.length == physical
    {
        last.length += 1;
    } else {
        extents.push(Extent { logical, physical, length: 1 });
    }
}

/// The extents of `count` blocks in one run.
pub(super) fn contiguous(physical: u32, count: u32) -> Vec<Extent> {
    (0..count)
        .step_by(MAX_LENGTH as usize)
        .map(|done| Extent {
            logical: done,
            physical: physical + done,
            length: (count - done).min(MAX_LENGTH),
        })
        .collect()
}

/// How many blocks a tree of so many extents takes.
pub(super) fn tree_blocks(extents: usize) -> u32 {
    let (mut level, mut total) = (extents, 0);
    while level > IN_INODE {
        level = level.div_ceil(IN_BLOCK);
        total += level;
    }
    u32::try_from(total).unwrap_or(u32::MAX)
}

/// Builds the tree; `store` puts a block somewhere and says where.
pub(super) fn encode(
    extents: &[Extent],
    mut store: impl FnMut(&[u8]) -> Result<u32, Ext4Error>,
) -> Result<Root, Ext4Error> {
    let mut level: Vec<(u32, [u8; ENTRY])> = extents.iter().map(|e| (e.logical, leaf(*e))).collect();
    let mut depth = 0;
    while level.len() > IN_INODE {
        level = level
            .chunks(IN_BLOCK)
            .map(|entries| {
                let mut block = [0; BLOCK];
                fill(&mut block, entries, IN_BLOCK, depth);
                let first = entries[0].0;
                Ok((first, index(first, store(&block)?)))
            })
            .collect::<Result<_, Ext4Error>>()?;
        depth += 1;
    }
    let mut root = [0; 60];
    fill(&mut root, &level, IN_INODE, depth);
    Ok(root)
}

fn fill(node: &mut [u8], entries: &[(u32, [u8; ENTRY])], capacity: usize, depth: u16) {
    let count = |count: usize| u16::try_from(count).expect("a node has at most 340 entries").to_le_bytes();
    node[..2].copy_from_slice(&MAGIC.to_le_bytes());
    node[2..4].copy_from_slice(&count(entries.len()));
    node[4..6].copy_from_slice(&count(capacity));
    node[6..8].copy_from_slice(&depth.to_le_bytes());
    for (slot, (_, entry)) in node[ENTRY..].chunks_exact_mut(ENTRY).zip(entries) {
        slot.copy_from_slice(entry);
    }
}

/// Logical block, length, and the image's block (its upper 16 bits are zero: images end at 2 TiB).
fn leaf(extent: Extent) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&extent.logical.to_le_bytes());
    let length = u16::try_from(extent.length).expect("extents have at most 32768 blocks");
    entry[4..6].copy_from_slice(&length.to_le_bytes());
    entry[8..].copy_from_slice(&extent.physical.to_le_bytes());
    entry
}

/// Logical block, and the block of the node beneath.
fn index(logical: u32, node: u32) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&logical.to_le_bytes());
    entry[4..8].copy_from_slice(&node.to_le_bytes());
    entry
}
