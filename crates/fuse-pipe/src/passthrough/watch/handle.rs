//! What a file is called in events.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::sys;

/// A file of a file system, as name_to_handle_at(2) tells files apart: a number that is used again is
/// another file's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct FileHandle(Box<[u8]>);

impl FileHandle {
    /// Of the file system with that id (`f_fsid`).
    pub(super) fn new(system: [u8; 8], kind: i32, bytes: &[u8]) -> Self {
        Self([&system[..], &kind.to_ne_bytes(), bytes].concat().into())
    }

    /// An open file's.
    pub(super) fn of(system: [u8; 8], file: BorrowedFd<'_>) -> Result<Self, Errno> {
        let handle = sys::handle(file)?;
        Ok(Self::new(system, handle.kind, handle.bytes()))
    }
}
