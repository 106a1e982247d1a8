//! The unsafe part: userfaultfd's orders, and memory that is only ever read by the kernel.

use std::{
    ffi::c_void,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use rustix::{
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap},
};

/// `UFFDIO_*` of `linux/userfaultfd.h`: the same numbers on x86-64 and aarch64.
const UFFDIO_WAKE: u32 = 0x8010_aa02;
const UFFDIO_COPY: u32 = 0xc028_aa03;
const UFFDIO_ZEROPAGE: u32 = 0xc020_aa04;

/// `SO_PEERPIDFD` of `asm-generic/socket.h`, since Linux 6.5.
const SO_PEERPIDFD: libc::c_int = 77;

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Copy {
    to: u64,
    from: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct ZeroPage {
    range: Range,
    mode: u64,
    zeroed: i64,
}

/// Memory to copy from. It has an address and a length, and no way to be read in this process: if its file
/// is cut off meanwhile, the kernel's copy fails, and nobody gets a SIGBUS.
#[derive(Debug)]
pub(crate) struct Mapping {
    address: *mut c_void,
    len: usize,
}

// SAFETY: the address is not read through, only given to the kernel.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// The first `len` bytes of a file.
    pub(crate) fn of_file(file: impl AsFd, len: usize) -> Result<Self, Errno> {
        // SAFETY: the kernel chooses a free address, so nothing that exists is changed.
        let address = unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
        Ok(Self { address, len })
    }

    /// Zeros.
    pub(crate) fn of_zeros(len: usize) -> Result<Self, Errno> {
        // SAFETY: as above.
        let address = unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE) }?;
        Ok(Self { address, len })
    }

    /// The address of a part, if all of it is within.
    fn at(&self, offset: usize, len: usize) -> Result<*mut c_void, Errno> {
        match offset.checked_add(len) {
            Some(end) if end <= self.len => Ok(self.address.wrapping_byte_add(offset)),
            _ => Err(Errno::FAULT),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is ours alone, and whoever copies from it has borrowed it.
        let unmapped = unsafe { munmap(self.address, self.len) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}

/// Copies into the memory behind a uffd, and wakes who waits there. How many bytes: at least a page, maybe not all.
pub(crate) fn copy(
    uffd: BorrowedFd<'_>,
    to: u64,
    from: &Mapping,
    offset: usize,
    len: usize,
) -> Result<u64, Errno> {
    let from = from.at(offset, len)?.expose_provenance() as u64;
    let mut order = Copy { to, from, len: len as u64, mode: 0, copied: 0 };
    // SAFETY: UFFDIO_COPY reads and writes a `uffdio_copy`, which it is and which lives across the call. What
    // is copied is within a mapping that is borrowed for so long.
    let result = unsafe { ioctl(uffd, UFFDIO_COPY, (&raw mut order).cast()) };
    outcome(result, order.copied)
}

/// Lets the memory behind a uffd read as zeros, and wakes who waits there; as [`copy`].
pub(crate) fn zero(uffd: BorrowedFd<'_>, at: u64, len: u64) -> Result<u64, Errno> {
    let mut order = ZeroPage { range: Range { start: at, len }, mode: 0, zeroed: 0 };
    // SAFETY: UFFDIO_ZEROPAGE reads and writes a `uffdio_zeropage`, which it is and which lives across the call.
    let result = unsafe { ioctl(uffd, UFFDIO_ZEROPAGE, (&raw mut order).cast()) };
    outcome(result, order.zeroed)
}

/// Wakes who waits there.
pub(crate) fn wake(uffd: BorrowedFd<'_>, start: u64, len: u64) -> Result<(), Errno> {
    let mut range = Range { start, len };
    // SAFETY: UFFDIO_WAKE reads a `uffdio_range`, which it is and which lives across the call.
    unsafe { ioctl(uffd, UFFDIO_WAKE, (&raw mut range).cast()) }
}

/// # Safety
/// What is behind the pointer is what this request reads and writes.
unsafe fn ioctl(uffd: BorrowedFd<'_>, request: u32, argument: *mut c_void) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, as it is borrowed; the caller has chosen the argument.
    let result = unsafe { libc::ioctl(uffd.as_raw_fd(), request as _, argument) };
    if result == -1 { Err(last_error()) } else { Ok(()) }
}

/// Where only a part was done, the kernel says EAGAIN and how much.
fn outcome(result: Result<(), Errno>, done: i64) -> Result<u64, Errno> {
    match (result, u64::try_from(done)) {
        (_, Ok(done)) if done > 0 => Ok(done),
        (Err(errno), _) => Err(errno),
        // It cannot be: no error, and nothing done.
        (Ok(()), _) => Err(Errno::IO),
    }
}

/// The process at the other end of a socket: a descriptor that cannot come to mean another.
pub(crate) fn peer_pidfd(socket: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let mut pidfd = MaybeUninit::<RawFd>::uninit();
    let mut len = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes, the size of what is behind the pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            pidfd.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result == -1 {
        return Err(last_error());
    }
    // SAFETY: it succeeded, so a descriptor was written.
    let pidfd = unsafe { pidfd.assume_init() };
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Takes a descriptor that came as a number in an event.
pub(crate) fn adopt(number: u32) -> Option<OwnedFd> {
    let number = RawFd::try_from(number).ok()?;
    // SAFETY: the kernel has just made it for us, and says its number but once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
