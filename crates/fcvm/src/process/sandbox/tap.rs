//! A tap in the sandbox's network namespace, which the program may open and nobody else.

use std::ffi::{CStr, CString};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

use super::sys;

/// What makes taps.
pub(super) const DEVICE: &CStr = c"/dev/net/tun";
/// The one in each sandbox that has one of its own.
pub const TAP: &str = "tap0";
pub(super) const NAME: &CStr = c"tap0";

/// A tap to be made.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) name: CString,
    /// The user who may open it.
    pub(super) owner: u32,
}

/// Makes the one of that name in this process's network namespace, for this user, and brings it up.
///
/// # Errors
/// Where there is no device for it, or this user may not.
pub fn make_tap(name: &CStr, owner: u32) -> Result<(), Errno> {
    make(&Tap { name: name.to_owned(), owner })
}

/// Makes it, and brings it up; of one that is there only the owner changes.
pub(super) fn make(tap: &Tap) -> Result<(), Errno> {
    let device = openat(CWD, DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    sys::become_tap(&device, &tap.name, tap.owner)?;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sys::bring_up(&socket, &tap.name)
}
