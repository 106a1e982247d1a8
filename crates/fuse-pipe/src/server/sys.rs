//! The unsafe part of the server.

use rustix::{
    io::Errno,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Gives this thread a root, a directory and a mask for new files of its own.
pub(super) fn own_mask() -> Result<(), Errno> {
    // SAFETY: no descriptors are parted from other threads', which is what is unsafe about it.
    unsafe { unshare_unsafe(UnshareFlags::FS) }
}
