//! Extended attributes: in the inode where they fit, else in a block of their own.

use std::collections::BTreeMap;

use super::{BLOCK, Ext4Error, Xattr, error::shown, inode::XATTR_SPACE};

const MAGIC: u32 = 0xea02_0000;
const BLOCK_HEADER: usize = 32;
const ENTRY: usize = 16;

/// Attributes as they are stored.
#[derive(Debug)]
pub(super) struct Encoded {
    /// What goes behind the inode's fields; may be empty.
    pub(super) inode: Box<[u8]>,
    /// The attribute block, where one is needed.
    pub(super) block: Option<Box<[u8]>>,
}

/// Entries in a block are sorted by index, length and name: the kernel searches them so.
type Key = (u8, usize, Vec<u8>);

/// Encodes attributes; nothing where there are none.
///
/// # Errors
/// Where a name is none ext4 knows, an ACL is malformed, or all together are too large.
pub(super) fn encode(xattrs: &[Xattr], path: &[u8]) -> Result<Option<Box<Encoded>>, Ext4Error> {
    let mut sorted: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
    for xattr in xattrs {
        let (key, value) = convert(xattr).map_err(|reason| Ext4Error::InvalidXattr {
            path: shown(path),
            name: shown(&xattr.name),
            reason,
        })?;
        sorted.insert(key, value);
    }
    if sorted.is_empty() {
        return Ok(None);
    }
    // Four bytes of magic before the entries, four zero bytes behind them.
    let mut room = XATTR_SPACE - 4 - 4;
    let (mut inner, mut outer) = (Vec::new(), Vec::new());
    for item in &sorted {
        match room.checked_sub(stored(item)) {
            Some(left) => {
                room = left;
                inner.push(item);
            }
            None => outer.push(item),
        }
    }
    let bytes: usize = outer.iter().map(|item| stored(*item)).sum();
    if BLOCK_HEADER + bytes + 4 > BLOCK {
        return Err(Ext4Error::XattrsTooLarge { path: shown(path), bytes });
    }
    let mut inode = Vec::new();
    if !inner.is_empty() {
        inode.resize(XATTR_SPACE, 0);
        inode[..4].copy_from_slice(&MAGIC.to_le_bytes());
        // Offsets of values count from behind the magic; entries in inodes carry no hash.
        fill(&mut inode[4..], 0, &inner, Hashes::Omit);
    }
    let block = (!outer.is_empty()).then(|| block(&outer));
    Ok(Some(Box::new(Encoded { inode: inode.into(), block })))
}

type Item<'a> = (&'a Key, &'a Vec<u8>);

fn stored((key, value): Item) -> usize {
    ENTRY + key.2.len().next_multiple_of(4) + value.len().next_multiple_of(4)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hashes {
    Omit,
    Write,
}

/// Writes entries from `at` on and values from the end down; returns the hash of all entries.
fn fill(area: &mut [u8], at: usize, items: &[Item], hashes: Hashes) -> u32 {
    let (mut at, mut end, mut all) = (at, area.len(), 0_u32);
    for (key, value) in items {
        let (index, length, name) = key;
        let mut offset = 0;
        if !value.is_empty() {
            end -= value.len().next_multiple_of(4);
            offset = end;
            area[end..end + value.len()].copy_from_slice(value);
        }
        let small = |value: usize| u16::try_from(value).expect("attributes are within a block");
        area[at] = u8::try_from(*length).expect("checked when converted");
        area[at + 1] = *index;
        area[at + 2..at + 4].copy_from_slice(&small(offset).to_le_bytes());
        area[at + 8..at + 12].copy_from_slice(&u32::from(small(value.len())).to_le_bytes());
        if hashes == Hashes::Write {
            let hash = entry_hash(name, value);
            area[at + 12..at + 16].copy_from_slice(&hash.to_le_bytes());
            all = all.rotate_left(16) ^ hash;
        }
        area[at + ENTRY..at + ENTRY + name.len()].copy_from_slice(name);
        at += ENTRY + name.len().next_multiple_of(4);
    }
    all
}

fn block(items: &[Item]) -> Box<[u8]> {
    let mut block = vec![0; BLOCK];
    let hash = fill(&mut block, BLOCK_HEADER, items, Hashes::Write);
    block[..4].copy_from_slice(&MAGIC.to_le_bytes());
    // One inode refers to it, and it has one block.
    block[4] = 1;
    block[8] = 1;
    block[12..16].copy_from_slice(&hash.to_le_bytes());
    block.into()
}

/// The hash of an entry: names byte by byte, as signed numbers, values word by word.
fn entry_hash(name: &[u8], value: &[u8]) -> u32 {
    let mut hash = 0_u32;
    for byte in name {
        hash = hash.rotate_left(5) ^ i32::from(byte.cast_signed()).cast_unsigned();
    }
    for word in value.chunks(4) {
        let mut padded = [0; 4];
        padded[..word.len()].copy_from_slice(word);
        hash = hash.rotate_left(16) ^ u32::from_le_bytes(padded);
    }
    hash
}

/// The name as an index and the rest, and the value as it is on disk.
fn convert(xattr: &Xattr) -> Result<(Key, Vec<u8>), &'static str> {
    const PREFIXES: [(&[u8], u8); 3] = [(b"user.", 1), (b"trusted.", 4), (b"security.", 6)];
    match xattr.name.as_slice() {
        b"system.posix_acl_access" => return Ok(((2, 0, Vec::new()), acl(&xattr.value)?)),
        b"system.posix_acl_default" => return Ok(((3, 0, Vec::new()), acl(&xattr.value)?)),
        _ => {}
    }
    let (name, index) = PREFIXES
        .iter()
        .find_map(|(prefix, index)| Some((xattr.name.strip_prefix(*prefix)?, *index)))
        .ok_or("is of no kind ext4 stores")?;
    if name.is_empty() || xattr.name.len() > 255 || name.contains(&0) {
        return Err("has a bad name");
    }
    if xattr.value.len() > BLOCK {
        return Err("is larger than ext4 holds");
    }
    Ok(((index, name.len(), name.to_owned()), xattr.value.clone()))
}

/// An ACL as the kernel passes it (version 2, eight bytes an entry) in the form
/// ext4 stores (version 1, an id only where the entry names somebody).
fn acl(value: &[u8]) -> Result<Vec<u8>, &'static str> {
    const MALFORMED: &str = "is not a valid ACL";
    let (version, entries) = value.split_first_chunk::<4>().ok_or(MALFORMED)?;
    if u32::from_le_bytes(*version) != 2 || entries.len() % 8 != 0 || value.len() > BLOCK {
        return Err(MALFORMED);
    }
    let mut stored = 1_u32.to_le_bytes().to_vec();
    for entry in entries.chunks_exact(8) {
        stored.extend_from_slice(&entry[..4]);
        match u16::from_le_bytes([entry[0], entry[1]]) {
            // The owner, the group, the mask and others.
            0x01 | 0x04 | 0x10 | 0x20 => {}
            // A user or a group.
            0x02 | 0x08 => stored.extend_from_slice(&entry[4..]),
            _ => return Err(MALFORMED),
        }
    }
    Ok(stored)
}
