//! The unsafe part of locks: those of an open file description, and threads that wait for them.

use std::{
    fs::File,
    io, mem,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr,
    sync::OnceLock,
};

use rustix::{
    io::Errno,
    process::getpid,
    thread::{Pid, gettid},
};

use super::locks::{Kind, Patience, Range};

/// Ends a wait. Nobody else sends it to a thread, and without a handler it does nothing.
const WAKE: libc::c_int = libc::SIGURG;

/// `F_RDLCK`, `F_WRLCK`, `F_UNLCK` and `SEEK_SET`, as wide as a flock has them.
const SHARED: libc::c_short = 0;
const EXCLUSIVE: libc::c_short = 1;
const NONE: libc::c_short = 2;
const START: libc::c_short = 0;

/// Sets or takes away a lock of the descriptor's open file description.
pub(super) fn set_lock(fd: BorrowedFd<'_>, range: &Range, patience: Patience) -> Result<(), Errno> {
    let command = match patience {
        Patience::None => libc::F_OFD_SETLK,
        Patience::Endless => libc::F_OFD_SETLKW,
    };
    control(fd, command, &mut flock(range))
}

/// The lock that stands in the way of such a one, where one does.
pub(super) fn test_lock(fd: BorrowedFd<'_>, range: &Range) -> Result<Option<Range>, Errno> {
    let mut flock = flock(range);
    control(fd, libc::F_OFD_GETLK, &mut flock)?;
    let kind = match flock.l_type {
        SHARED => Kind::Shared,
        EXCLUSIVE => Kind::Exclusive,
        _ => return Ok(None),
    };
    let (start, length) = (flock.l_start.cast_unsigned(), flock.l_len.cast_unsigned());
    let end = if length == 0 { Range::LAST } else { start.saturating_add(length - 1) };
    Ok(Some(Range { kind, start, end }))
}

fn flock(range: &Range) -> libc::flock {
    let kind = match range.kind {
        Kind::Shared => SHARED,
        Kind::Exclusive => EXCLUSIVE,
        Kind::None => NONE,
    };
    // To the last byte that there can be is no length.
    let length = if range.end == Range::LAST { 0 } else { range.end - range.start + 1 };
    // SAFETY: it is plain numbers, for which zeros are good.
    let mut flock: libc::flock = unsafe { mem::zeroed() };
    flock.l_type = kind;
    flock.l_whence = START;
    flock.l_start = range.start.cast_signed();
    flock.l_len = length.cast_signed();
    flock
}

fn control(fd: BorrowedFd<'_>, command: libc::c_int, flock: &mut libc::flock) -> Result<(), Errno> {
    // SAFETY: these commands read and write a flock behind the pointer, which is one and ours alone across
    // the call. The descriptor is open, since it is borrowed.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), command, ptr::from_mut(flock)) })
}

/// Lets the number of `fd` stand for what `by` is. At no time is it free for others to be given.
pub(super) fn replace(fd: BorrowedFd<'_>, by: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: it touches no memory. Both are open, since they are borrowed, and `fd` is so afterwards.
    checked(unsafe { libc::dup3(by.as_raw_fd(), fd.as_raw_fd(), libc::O_CLOEXEC) })
}

/// Makes this thread one that [`wake`] wakes; its number.
pub(super) fn wakeable() -> Result<Pid, Errno> {
    static HANDLED: OnceLock<Result<(), Errno>> = OnceLock::new();
    HANDLED.get_or_init(handle).as_ref().map_err(|&errno| errno)?;
    // SAFETY: it is plain numbers, for which zeros are good.
    let mut set: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set is ours alone.
    unsafe { libc::sigemptyset(&raw mut set) };
    // SAFETY: as before.
    unsafe { libc::sigaddset(&raw mut set, WAKE) };
    // SAFETY: the set is one; where the old one goes may be null.
    match unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) } {
        0 => Ok(gettid()),
        errno => Err(Errno::from_raw_os_error(errno)),
    }
}

/// A handler that does nothing makes calls end with `EINTR`, unless they are to be begun again.
fn handle() -> Result<(), Errno> {
    extern "C" fn nothing(_signal: libc::c_int) {}
    // SAFETY: it is plain numbers, for which zeros are good: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the action is whole, and its handler touches nothing; where the old one goes may be null.
    checked(unsafe { libc::sigaction(WAKE, &raw const action, ptr::null_mut()) })
}

/// Ends the call in which a thread waits, if it does.
pub(super) fn wake(thread: Pid) -> Result<(), Errno> {
    let (process, thread) = (getpid().as_raw_pid(), thread.as_raw_pid());
    // SAFETY: it touches no memory, and whoever is woken has a handler: see [`wakeable`].
    let result = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, WAKE) };
    if result == -1 { Err(last()) } else { Ok(()) }
}

fn checked(result: libc::c_int) -> Result<(), Errno> {
    if result == -1 { Err(last()) } else { Ok(()) }
}

fn last() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// `FS_IOC_FSGETXATTR` of `linux/fs.h`, and the other: with a `struct fsxattr` of 28 bytes.
pub(super) fn get_xattr(file: &File) -> Result<[u8; 28], Errno> {
    let mut bytes = [0; 28];
    // SAFETY: it writes 28 bytes behind the pointer, where they are. The descriptor is open.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), 0x801c_581f_u32 as _, bytes.as_mut_ptr()) })?;
    Ok(bytes)
}

/// See [`get_xattr`].
pub(super) fn set_xattr(file: &File, bytes: &[u8; 28]) -> Result<(), Errno> {
    // SAFETY: it reads 28 bytes behind the pointer, where they are. The descriptor is open.
    checked(unsafe { libc::ioctl(file.as_raw_fd(), 0x401c_5820_u32 as _, bytes.as_ptr()) })
}
