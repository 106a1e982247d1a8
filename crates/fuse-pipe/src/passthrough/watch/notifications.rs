//! Notifications, as the client's kernel takes them.

use zerocopy::IntoBytes as _;

use crate::abi::{
    FUSE_EXPIRE_ONLY, NOTIFY_INVAL_ENTRY, NOTIFY_INVAL_INODE, NotifyInvalEntryOut, NotifyInvalInodeOut,
    OutHeader,
};

/// What of a file is not to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Attributes,
    /// And the content: of a directory the listing.
    All,
}

/// What becomes of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// It is something else now, or nothing.
    Changed,
    /// The client looks again when it needs it next.
    Expired,
}

/// Frames that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Notifications {
    pub(super) bytes: Vec<u8>,
}

impl Notifications {
    pub(super) fn inode(&mut self, node: u64, part: Part) {
        let off = if part == Part::Attributes { -1 } else { 0 };
        let body = NotifyInvalInodeOut { ino: node, off, len: 0 };
        self.frame(NOTIFY_INVAL_INODE, &[body.as_bytes()]);
    }

    pub(super) fn entry(&mut self, parent: u64, name: &[u8], what: Name) {
        let Ok(namelen) = u32::try_from(name.len()) else { return };
        let flags = if what == Name::Expired { FUSE_EXPIRE_ONLY } else { 0 };
        let body = NotifyInvalEntryOut { parent, namelen, flags };
        self.frame(NOTIFY_INVAL_ENTRY, &[body.as_bytes(), name, b"\0"]);
    }

    /// A reply to nobody, with the notification's code as its error.
    fn frame(&mut self, code: i32, parts: &[&[u8]]) {
        let length = size_of::<OutHeader>() + parts.iter().map(|part| part.len()).sum::<usize>();
        let len = u32::try_from(length).unwrap_or(u32::MAX);
        self.bytes.extend(OutHeader { len, error: code, unique: 0 }.as_bytes());
        for part in parts {
            self.bytes.extend(*part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `fuse_notify_inval_entry_out` and the like are in C.
    #[test]
    fn notifications_are_frames() {
        let mut frames = Notifications::default();
        frames.inode(5, Part::Attributes);
        assert_eq!(frames.bytes.len(), 40);
        assert_eq!(frames.bytes[..16], *OutHeader { len: 40, error: 2, unique: 0 }.as_bytes());
        assert_eq!(frames.bytes[24..32], (-1_i64).to_ne_bytes());
        frames.bytes.clear();
        frames.entry(1, b"name", Name::Expired);
        assert_eq!(frames.bytes[..16], *OutHeader { len: 37, error: 3, unique: 0 }.as_bytes());
        assert_eq!(frames.bytes[24..], *b"\x04\0\0\0\x01\0\0\0name\0");
    }
}
