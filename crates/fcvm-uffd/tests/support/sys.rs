//! The unsafe part of tests: memory that faults, and processes that have it.

use std::{
    ffi::c_void,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    panic::AssertUnwindSafe,
    ptr,
};

use rustix::{
    io::Errno,
    mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags, madvise, mmap_anonymous, userfaultfd},
    process::Pid,
};

const UFFDIO_API: u32 = 0xc018_aa3f;
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFD_API: u64 = 0xaa;
const EVENT_REMOVE: u64 = 1 << 3;
const MODE_MISSING: u64 = 1;

/// Runs `work` in a copy of this process that has this thread only. It fails where `work` panics.
pub(crate) fn fork(work: impl FnOnce()) -> Pid {
    // SAFETY: the copy uses no lock that another thread of a test could hold, but those of libc's
    // allocator, of which libc takes care itself.
    let pid = unsafe { libc::fork() };
    if let Some(pid) = Pid::from_raw(pid) {
        assert!(pid.as_raw_nonzero().get() > 0, "{}", io::Error::last_os_error());
        return pid;
    }
    // A test that fails must not leave it.
    // SAFETY: PR_SET_PDEATHSIG takes a signal's number.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let result = std::panic::catch_unwind(AssertUnwindSafe(work));
    // SAFETY: it ends the process, without what the original has registered for its own end.
    unsafe { libc::_exit(i32::from(result.is_err())) }
}

/// Memory of zeros, never unmapped; with huge pages where there are any.
pub(crate) fn map(len: usize, huge: bool) -> Result<u64, Errno> {
    let flags = if huge { MapFlags::PRIVATE | MapFlags::HUGETLB } else { MapFlags::PRIVATE };
    // SAFETY: the kernel chooses a free address.
    let address = unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) }?;
    Ok(address.expose_provenance() as u64)
}

/// A uffd as Firecracker makes it.
pub(crate) fn uffd() -> Result<OwnedFd, Errno> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: what faults on it is decided by those who register memory.
    let uffd = unsafe { userfaultfd(flags) }?;
    let mut api = [UFFD_API, EVENT_REMOVE, 0];
    // SAFETY: UFFDIO_API reads and writes a `uffdio_api`, which is three words.
    let done = unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_API as _, api.as_mut_ptr()) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    Ok(uffd)
}

pub(crate) fn register(uffd: &OwnedFd, address: u64, len: u64) {
    let mut order = [address, len, MODE_MISSING, 0];
    // SAFETY: UFFDIO_REGISTER reads and writes a `uffdio_register`, which is four words.
    let done = unsafe { libc::ioctl(uffd.as_raw_fd(), UFFDIO_REGISTER as _, order.as_mut_ptr()) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Reads a word of memory that [`map`] has given.
pub(crate) fn load(address: u64) -> u64 {
    let pointer = ptr::with_exposed_provenance::<u64>(address as usize);
    // SAFETY: it is in such memory and a multiple of eight.
    unsafe { pointer.read_volatile() }
}

/// Writes a word of it.
pub(crate) fn store(address: u64, value: u64) {
    let pointer = ptr::with_exposed_provenance_mut::<u64>(address as usize);
    // SAFETY: as for `load`; no reference is made to any of it.
    unsafe { pointer.write_volatile(value) }
}

/// Gives memory back.
pub(crate) fn give_back(address: u64, len: usize) -> Result<(), Errno> {
    let pointer = ptr::with_exposed_provenance_mut::<c_void>(address as usize);
    // SAFETY: it is memory that `map` has given, to which there are no references.
    unsafe { madvise(pointer, len, Advice::LinuxDontNeed) }
}
