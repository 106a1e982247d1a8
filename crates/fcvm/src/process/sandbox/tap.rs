//! A tap in the sandbox's network namespace, which the program may open and nobody else.

use std::{ffi::CStr, mem};

use rustix::{
    fd::{AsRawFd as _, OwnedFd},
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

use super::child::last_errno;

/// What makes taps.
pub(super) const DEVICE: &CStr = c"/dev/net/tun";
/// The one in each sandbox that has one.
pub const TAP: &str = "tap0";
const NAME: &CStr = c"tap0";

/// Flags of `linux/if_tun.h` and `linux/if.h`, in the width of the field that they are for.
const IFF_UP: libc::c_short = 1;
const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
const IFF_VNET_HDR: libc::c_short = 0x4000;

/// Makes it, and brings it up.
pub(super) fn make(owner: u32) -> Result<(), Errno> {
    let device = openat(CWD, DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // With the header of virtio, as a hypervisor opens it.
    let mut request = request(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    // SAFETY: TUNSETIFF reads and writes an `ifreq` behind the pointer, which is one and lives across the call.
    let made = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    check(made)?;
    set(&device, libc::TUNSETOWNER as _, owner)?;
    set(&device, libc::TUNSETPERSIST as _, 1)?;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let request = self::request(IFF_UP);
    // SAFETY: SIOCSIFFLAGS reads an `ifreq` behind the pointer, which is one and lives across the call.
    let up = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(up)
}

fn request(flags: libc::c_short) -> libc::ifreq {
    // SAFETY: an `ifreq` is plain numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(NAME.to_bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = flags;
    request
}

fn set(device: &OwnedFd, request: libc::c_ulong, value: u32) -> Result<(), Errno> {
    // SAFETY: the request takes a number, and touches no memory of ours.
    check(unsafe { libc::ioctl(device.as_raw_fd(), request as _, libc::c_ulong::from(value)) })
}

fn check(result: libc::c_int) -> Result<(), Errno> {
    if result == -1 { Err(last_errno()) } else { Ok(()) }
}
