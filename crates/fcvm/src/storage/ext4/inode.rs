//! Inodes as ext4 stores them.

use super::{Kind, Special, Timestamp, extents::Root, tree::Attributes};

/// The size of an inode in bytes.
pub(super) const SIZE: usize = SIZE_FIELD as usize;
/// The same, as the superblock says it.
pub(super) const SIZE_FIELD: u16 = 256;
/// Fields behind the first 128 bytes: times past 2038 and their nanoseconds.
pub(super) const EXTRA: u16 = 32;
/// What is left for extended attributes.
pub(super) const XATTR_SPACE: usize = SIZE - 128 - EXTRA as usize;
/// The longest symbolic link that fits into the inode.
pub(super) const FAST_SYMLINK: usize = 59;

/// All that an inode says.
pub(super) struct Inode<'a> {
    pub(super) kind: Kind,
    pub(super) attributes: &'a Attributes,
    pub(super) links: u16,
    pub(super) size: u64,
    /// Blocks of content, extent tree and attributes.
    pub(super) blocks: u64,
    pub(super) content: Content,
    pub(super) xattr_block: u32,
}

/// The sixty bytes that say where the content is.
pub(super) enum Content {
    /// An extent tree.
    Extents(Root),
    /// The target of a short symbolic link, or a device number.
    Inline(Root),
}

const EXTENTS_FLAG: u32 = 0x0008_0000;

impl Inode<'_> {
    pub(super) fn encode(&self, out: &mut [u8; SIZE]) {
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        let low = |value: u64| ((value & 0xffff_ffff) as u32).to_le_bytes();
        let attributes = self.attributes;
        let (uid, gid) = (attributes.uid.to_le_bytes(), attributes.gid.to_le_bytes());
        let (seconds, extra) = time(attributes.mtime);
        let (flags, content) = match &self.content {
            Content::Extents(root) => (EXTENTS_FLAG, root),
            Content::Inline(bytes) => (0, bytes),
        };
        // Counted in units of 512 bytes, in 48 bits.
        let sectors = self.blocks * 8;
        put(0x00, &(mode_type(self.kind) | attributes.mode & 0o7777).to_le_bytes());
        put(0x02, &uid[..2]);
        put(0x04, &low(self.size));
        for at in [0x08, 0x0c, 0x10, 0x90] {
            put(at, &seconds);
        }
        put(0x18, &gid[..2]);
        put(0x1a, &self.links.to_le_bytes());
        put(0x1c, &low(sectors));
        put(0x20, &flags.to_le_bytes());
        put(0x28, content);
        put(0x68, &self.xattr_block.to_le_bytes());
        put(0x6c, &low(self.size >> 32));
        put(0x74, &low(sectors >> 32)[..2]);
        put(0x78, &uid[2..]);
        put(0x7a, &gid[2..]);
        put(0x80, &EXTRA.to_le_bytes());
        for at in [0x84, 0x88, 0x8c, 0x94] {
            put(at, &extra);
        }
        if let Some(xattrs) = &attributes.xattrs {
            put(SIZE - XATTR_SPACE, &xattrs.inode);
        }
    }
}

/// The low 32 bits of the seconds, and a word of nanoseconds with two more bits
/// of seconds. Times ext4 cannot say become the nearest it can.
fn time(time: Timestamp) -> ([u8; 4], [u8; 4]) {
    const MIN: i64 = i32::MIN as i64;
    const MAX: i64 = MIN + (1 << 34) - 1;
    let seconds = time.seconds.clamp(MIN, MAX);
    let low = (seconds & 0xffff_ffff) as u32;
    // The low word counts as signed; the epoch makes up for it.
    let epoch = ((seconds - i64::from(low.cast_signed())) >> 32) & 3;
    let extra = (time.nanoseconds.min(999_999_999) << 2) | epoch as u32 & 3;
    (low.to_le_bytes(), extra.to_le_bytes())
}

fn mode_type(kind: Kind) -> u16 {
    match kind {
        Kind::Special(Special::Fifo) => 0o010_000,
        Kind::Special(Special::CharDevice { .. }) => 0o020_000,
        Kind::Directory => 0o040_000,
        Kind::Special(Special::BlockDevice { .. }) => 0o060_000,
        Kind::File => 0o100_000,
        Kind::Symlink => 0o120_000,
        Kind::Special(Special::Socket) => 0o140_000,
    }
}

/// A device number: the old form where it fits, for it is what the kernel writes.
pub(super) fn device(special: Special) -> Root {
    let mut content = [0; 60];
    if let Special::CharDevice { major, minor } | Special::BlockDevice { major, minor } = special {
        if major < 256 && minor < 256 {
            content[..4].copy_from_slice(&(major << 8 | minor).to_le_bytes());
        } else {
            let number = minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12;
            content[4..8].copy_from_slice(&number.to_le_bytes());
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_2038_and_before_1970_are_kept() {
        let decode = |seconds| {
            let (low, extra) = time(Timestamp { seconds, nanoseconds: 999_999_999 });
            let extra = u32::from_le_bytes(extra);
            assert_eq!(extra >> 2, 999_999_999);
            i64::from(i32::from_le_bytes(low)) + (i64::from(extra & 3) << 32)
        };
        for seconds in [0, -1, -2_147_483_648, 2_147_483_647, 2_147_483_648, 4_294_967_296, 15_032_385_535] {
            assert_eq!(decode(seconds), seconds);
        }
        assert_eq!(decode(i64::MAX), 15_032_385_535);
        assert_eq!(decode(i64::MIN), -2_147_483_648);
    }
}
