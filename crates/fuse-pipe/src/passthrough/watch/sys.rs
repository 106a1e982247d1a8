//! The unsafe part of watching: fanotify and file handles, which no wrapper has whole.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use rustix::io::Errno;

/// `MAX_HANDLE_SZ` of `linux/exportfs.h`.
const LONGEST: u32 = 128;

/// `struct file_handle`, with room.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RawHandle {
    length: u32,
    pub(super) kind: i32,
    bytes: [u8; LONGEST as usize],
}

impl RawHandle {
    /// What tells the file apart, besides the kind.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length.min(LONGEST) as usize]
    }
}

fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A group for events with the handles of the directory, the file, and its name. An ordinary user may
/// have one.
pub(super) fn group() -> Result<OwnedFd, Errno> {
    let flags =
        libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME_TARGET;
    // SAFETY: fanotify_init takes plain numbers.
    let group = unsafe { libc::fanotify_init(flags, (libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned()) };
    if group == -1 {
        return Err(last());
    }
    // SAFETY: the kernel has just made it, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(group) })
}

/// Adds a mark (`FAN_MARK_ADD`) to what `path` leads to below `directory`, or takes it away.
pub(super) fn mark(
    group: BorrowedFd<'_>,
    flags: u32,
    mask: u64,
    directory: BorrowedFd<'_>,
    path: &CStr,
) -> Result<(), Errno> {
    // SAFETY: the path ends in a NUL and lives across the call; the rest are numbers.
    let result =
        unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, directory.as_raw_fd(), path.as_ptr()) };
    if result == -1 { Err(last()) } else { Ok(()) }
}

/// The handle of an open file, as events have it.
pub(super) fn handle(file: BorrowedFd<'_>) -> Result<RawHandle, Errno> {
    match named(file, libc::AT_EMPTY_PATH | libc::AT_HANDLE_FID) {
        // A kernel before 6.5, which has but one kind of handles.
        Err(Errno::INVAL) => named(file, libc::AT_EMPTY_PATH),
        handle => handle,
    }
}

fn named(file: BorrowedFd<'_>, flags: i32) -> Result<RawHandle, Errno> {
    let mut handle = RawHandle { length: LONGEST, kind: 0, bytes: [0; LONGEST as usize] };
    let mut mount = 0;
    let to = (&raw mut handle).cast();
    // SAFETY: the empty path ends in a NUL; `to` has as many bytes behind its head as its length says, and
    // both live across the call.
    let result =
        unsafe { libc::name_to_handle_at(file.as_raw_fd(), c"".as_ptr(), to, &raw mut mount, flags) };
    if result == -1 { Err(last()) } else { Ok(handle) }
}
