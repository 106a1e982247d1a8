//! A descriptor of `/dev/fuse`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open},
    io::{Errno, read, write},
};

use crate::sys;

/// Where the kernel's requests come from and their replies go: one whole frame a call.
#[derive(Debug)]
pub(super) struct Device(OwnedFd);

impl Device {
    /// One that belongs to no mount yet.
    pub(super) fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        open("/dev/fuse", flags, Mode::empty()).map(Self)
    }

    /// One that another program has opened, and nobody else has.
    pub(super) fn from_helper(descriptor: OwnedFd) -> Result<Self, Errno> {
        fcntl_setfl(&descriptor, fcntl_getfl(&descriptor)? | OFlags::NONBLOCK)?;
        Ok(Self(descriptor))
    }

    /// One more of the same mount: a reply goes where its request came from.
    pub(super) fn another(&self) -> Result<Self, Errno> {
        let fresh = Self::open()?;
        sys::join_connection(fresh.as_fd(), self.as_fd())?;
        Ok(fresh)
    }

    /// The next request; `None` where there is none yet.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        loop {
            match read(&self.0, &mut *buffer) {
                Ok(length) => return Ok(Some(length)),
                Err(Errno::AGAIN) => return Ok(None),
                // ENOENT: who asked was interrupted before the request was read.
                Err(Errno::INTR | Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// A reply or a notification, which does not wait for anything but, the latter, for locks.
    pub(super) fn write(&self, frame: &[u8]) -> Result<(), Errno> {
        loop {
            match write(&self.0, frame) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
