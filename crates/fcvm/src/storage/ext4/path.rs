//! Paths within the file system.

use super::{Ext4Error, error::shown};

/// The longest path, as Linux has it.
const PATH_MAX: usize = 4096;
/// The longest name of a file.
const NAME_MAX: usize = 255;

/// A path relative to the root: no component is empty, `.` or `..`. Without
/// components it is the root.
#[derive(Debug, Clone, Copy)]
pub(super) struct FsPath<'a> {
    bytes: &'a [u8],
}

impl<'a> FsPath<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Ext4Error> {
        let refuse = |reason| Err(Ext4Error::InvalidPath { path: shown(bytes), reason });
        if bytes.is_empty() {
            return Ok(Self { bytes });
        }
        if bytes.len() > PATH_MAX {
            let path = format!("{}...", shown(&bytes[..64]));
            return Err(Ext4Error::InvalidPath { path, reason: "is longer than 4096 bytes" });
        }
        if bytes.contains(&0) {
            return refuse("holds a zero byte");
        }
        for component in bytes.split(|byte| *byte == b'/') {
            match component {
                b"" => return refuse("has an empty component"),
                b"." | b".." => return refuse("has a component `.` or `..`"),
                _ if component.len() > NAME_MAX => return refuse("has a name longer than 255 bytes"),
                _ => {}
            }
        }
        Ok(Self { bytes })
    }

    /// The last component, and what comes before it; nothing for the root.
    pub(super) fn split(self) -> Option<(Self, &'a [u8])> {
        if self.bytes.is_empty() {
            return None;
        }
        Some(match self.bytes.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (Self { bytes: &self.bytes[..slash] }, &self.bytes[slash + 1..]),
            None => (Self { bytes: b"" }, self.bytes),
        })
    }

    /// The components of the path.
    pub(super) fn components(self) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        self.bytes.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
    }

    /// As errors show it.
    pub(super) fn shown(self) -> String {
        shown(self.bytes)
    }
}

/// Whether a component of a symbolic link's target may name a file.
pub(super) fn is_name(component: &[u8]) -> bool {
    component.len() <= NAME_MAX
}
