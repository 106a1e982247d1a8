//! The unsafe part: what no wrapper offers.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rustix::io::Errno;

/// `FUSE_DEV_IOC_CLONE` of `linux/fuse.h`.
const FUSE_DEV_IOC_CLONE: u32 = 0x8004_e500;

/// Makes `fresh`, a descriptor of `/dev/fuse` just opened, one more of the connection that `existing` has.
pub(crate) fn join_connection(fresh: BorrowedFd<'_>, existing: BorrowedFd<'_>) -> Result<(), Errno> {
    let existing = existing.as_raw_fd().cast_unsigned();
    // SAFETY: FUSE_DEV_IOC_CLONE reads a u32 behind the pointer, which is one and lives across the call.
    // Both descriptors are open, since they are borrowed.
    let result = unsafe { libc::ioctl(fresh.as_raw_fd(), FUSE_DEV_IOC_CLONE as _, &raw const existing) };
    if result == -1 {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}
