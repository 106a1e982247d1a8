//! The unsafe part: what no wrapper offers, for between fork and exec. Nothing here allocates or takes locks.

use std::{
    ffi::CStr,
    io, mem,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use rustix::{
    io::Errno,
    process::Pid,
    thread::{UnshareFlags, unshare_unsafe},
};

/// Flags of `linux/if_tun.h` and `linux/if.h`, in the width of the field that they are for.
const IFF_UP: libc::c_short = 1;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;

/// Has the child do this before it becomes the program: system calls on what was prepared before.
pub(super) fn before_exec(
    command: &mut Command,
    enter: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: between fork and exec only async-signal-safe code may run. The caller's closure is
    // `Prepared::enter`, which makes system calls, and neither allocates nor takes locks.
    unsafe { command.pre_exec(enter) };
}

/// Makes namespaces for this process, which has one thread.
pub(super) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: no caller parts the table of descriptors from another's, which is what is unsafe about it.
    unsafe { unshare_unsafe(flags.difference(UnshareFlags::FILES)) }
}

/// A child of this process; `None` in it. Without what the C library does about it, which is not for
/// between fork and exec.
pub(super) fn fork() -> Result<Option<Pid>, Errno> {
    let (flags, none) = (libc::SIGCHLD, 0);
    // SAFETY: the child has this process's memory as its own, and this thread only, which goes on here.
    let child = unsafe { libc::syscall(libc::SYS_clone, flags, none, none, none, none) };
    match i32::try_from(child) {
        Ok(-1) | Err(_) => Err(last_errno()),
        Ok(child) => Ok(Pid::from_raw(child)),
    }
}

/// Closes all descriptors, of a process that goes on without any.
pub(super) fn close_all() {
    // SAFETY: by the contract above nothing that a descriptor is used for is left to do.
    if unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) } == 0 {
        return;
    }
    for number in 0..libc::c_int::from(u16::MAX) {
        // SAFETY: as above.
        unsafe { libc::close(number) };
    }
}

/// Gives a signal its usual effect, in place of a handler's.
pub(super) fn reset(signal: i32) {
    // SAFETY: no handler is installed, one is removed.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Ends this process at once.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: nothing runs afterwards, no handlers of the C library either.
    unsafe { libc::_exit(code) }
}

/// Makes `device` the tap of that name, which stays without it, for its owner.
pub(super) fn become_tap(device: &OwnedFd, name: &CStr, owner: u32) -> Result<(), Errno> {
    // With the header of virtio, as a hypervisor opens it.
    let mut request = request(name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    // SAFETY: TUNSETIFF reads and writes an `ifreq` behind the pointer, which is one and lives across the call.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) })?;
    let owner = libc::c_ulong::from(owner);
    // SAFETY: TUNSETOWNER takes a number, and touches no memory of ours.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETOWNER as _, owner) })?;
    let on: libc::c_ulong = 1;
    // SAFETY: as above.
    check(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETPERSIST as _, on) })
}

/// Brings a network interface up, by any socket.
pub(super) fn bring_up(socket: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let request = request(name, IFF_UP);
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` behind the pointer, which is one and lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
}

fn request(name: &CStr, flags: libc::c_short) -> libc::ifreq {
    // SAFETY: an `ifreq` is plain numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.to_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags;
    request
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}
