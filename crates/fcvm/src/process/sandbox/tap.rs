//! A tap in the sandbox's network namespace, which the program may open and nobody else.

use std::ffi::CStr;

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

use super::sys;

/// What makes taps.
pub(super) const DEVICE: &CStr = c"/dev/net/tun";
/// The one in each sandbox that has one.
pub const TAP: &str = "tap0";
const NAME: &CStr = c"tap0";

/// Makes it, and brings it up.
pub(super) fn make(owner: u32) -> Result<(), Errno> {
    let device = openat(CWD, DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::become_tap(&device, NAME, owner)?;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::bring_up(&socket, NAME)
}
