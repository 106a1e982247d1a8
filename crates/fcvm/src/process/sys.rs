//! The unsafe part: what happens between fork and exec, and what comes through it.

use std::{
    io,
    os::{
        fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Signal, getpid, getppid, set_parent_process_death_signal},
};
use tokio::io::unix::AsyncFd;

/// Makes the child get `signal` when the *thread* that starts it ends, however
/// that happens (the kernel ties the signal to the thread that forked). The
/// caller keeps that thread until the child has ended.
pub fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(signal))?;
        // The parent may have died before the line above.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe code may run: the closure makes the
    // two system calls prctl and getppid, and neither allocates nor takes locks (an `io::Error`
    // of a kind or an errno is plain data).
    unsafe { command.pre_exec(bind) };
}

/// Puts a descriptor under the runtime's watch.
///
/// # Errors
/// Where it is of a kind that cannot be watched.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, always names the same descriptor, and the
    // `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register(fd) };
    Ok(watched?)
}

/// A descriptor that whoever started this process gave it by its number. To be called once, before this
/// process has opened anything.
///
/// # Errors
/// Where there is none.
pub(super) fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow lasts for the call below only, which fails for a number without a descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open, as has just been seen; by the contract above nothing of this
    // process has opened it, so that nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
