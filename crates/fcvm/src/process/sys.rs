//! The unsafe part: what happens between fork and exec, and what comes through it.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::{ffi::OsStrExt as _, process::CommandExt as _},
    },
    path::Path,
    process::Command,
    sync::Arc,
};

use rustix::{
    io::{Errno, FdFlags, fcntl_setfd},
    mount::{MountPropagationFlags, mount_bind, mount_change},
    process::{Signal, getpid, getppid, set_parent_process_death_signal},
    thread::{
        CapabilitySet, UnshareFlags, capabilities, configure_capability_in_ambient_set, set_capabilities,
        unshare_unsafe,
    },
};
use tokio::io::unix::AsyncFd;

use super::Namespaces;

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

/// Keeps all descriptors but the three standard ones from the programs that this process starts from now on:
/// also those that whoever started it had left open, and which a program that outlives it would hold.
///
/// # Errors
/// Where the kernel cannot do that.
pub fn keep_descriptors() -> io::Result<()> {
    // SAFETY: with this flag the call closes nothing, and changes what only an `exec` looks at.
    let done =
        unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Has the child join these namespaces before it becomes the program.
pub(super) fn join(command: &mut Command, namespaces: Arc<Namespaces>) {
    // SAFETY: between fork and exec only async-signal-safe code may run: `Namespaces::enter` makes
    // system calls, and neither allocates nor takes locks; an errno as an `io::Error` is plain data.
    unsafe { command.pre_exec(move || Ok(namespaces.enter()?)) };
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

/// Makes namespaces, of which this process, which has one thread, will be a part.
///
/// # Errors
/// Where the kernel does not let this user.
pub fn unshare(namespaces: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: what is unsafe about it is to part the table of descriptors from another thread's.
    unsafe { unshare_unsafe(namespaces.difference(UnshareFlags::FILES)) }
}

/// Has a program that changes networks keep the right to do so, where the process has it in a user namespace
/// whose root it is not: what it has by that goes otherwise with the start of a program.
pub fn keep_network_administration(command: &mut Command) {
    let keep = || {
        let mut sets = capabilities(None)?;
        if sets.permitted.contains(CapabilitySet::NET_ADMIN) {
            sets.inheritable |= CapabilitySet::NET_ADMIN;
            set_capabilities(None, sets)?;
            configure_capability_in_ambient_set(CapabilitySet::NET_ADMIN, true)?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe code may run: these are system calls that neither
    // allocate nor take locks.
    unsafe { command.pre_exec(keep) };
}

/// Shows a program a network namespace as a file, in a view of the file system of its own: root only. The file
/// is there.
///
/// # Errors
/// Where the path has a NUL in it.
pub fn show_namespace(command: &mut Command, network: OwnedFd, file: &Path) -> io::Result<()> {
    let source = CString::new(format!("/proc/self/fd/{}", network.as_raw_fd()))?;
    let file = CString::new(file.as_os_str().as_bytes())?;
    let show = move || {
        // The descriptor is open until the program starts.
        let _ = &network;
        unshare(UnshareFlags::NEWNS)?;
        mount_change(c"/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
        Ok(mount_bind(source.as_c_str(), file.as_c_str())?)
    };
    // SAFETY: as above; what is moved into the closure was made before the fork, and is not freed in it.
    unsafe { command.pre_exec(show) };
    Ok(())
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
