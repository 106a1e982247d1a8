//! The unsafe part: calls that no wrapper has.

use std::{io, panic::AssertUnwindSafe};

use rustix::{
    io::Errno,
    process::Pid,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Runs `work` in a copy of this process that has this thread only. It fails where `work` panics.
pub(crate) fn fork(work: impl FnOnce()) -> Pid {
    // SAFETY: no other thread of a test holds a lock that the copy needs: the first waits for this one, and
    // what libc has locks for it takes care of itself.
    let pid = unsafe { libc::fork() };
    if let Some(pid) = Pid::from_raw(pid) {
        assert!(pid.as_raw_nonzero().get() > 0, "{}", io::Error::last_os_error());
        return pid;
    }
    let result = std::panic::catch_unwind(AssertUnwindSafe(work));
    // SAFETY: it ends the process, without what the original has registered for its own end.
    unsafe { libc::_exit(i32::from(result.is_err())) }
}

/// Whether this process could make its parent trace it.
pub(crate) fn trace_me() -> io::Result<()> {
    // SAFETY: PTRACE_TRACEME takes no other argument.
    let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Parts something from the other threads'.
pub(crate) fn unshare(what: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: where it succeeds the test fails, before any descriptor is used.
    unsafe { unshare_unsafe(what) }
}
