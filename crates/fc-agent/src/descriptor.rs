//! A pipe's or a terminal's end, read and written without blocking.

use std::{io, os::fd::OwnedFd};

use rustix::io::{ioctl_fionbio, read, write};
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub(crate) struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// # Errors
    /// Where it cannot be watched.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        ioctl_fionbio(&fd, true)?;
        Ok(Self(crate::sys::watch(fd)?))
    }

    pub(crate) fn get(&self) -> &OwnedFd {
        self.0.get_ref()
    }

    /// Reads what there is, or waits for it; 0 at the end. Cancel-safe.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(read) = ready.try_io(|fd| Ok(read(fd, &mut *buffer)?)) {
                return read;
            }
        }
    }

    /// Reads what there is now; `WouldBlock` where there is nothing.
    pub(crate) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(read(self.0.get_ref(), buffer)?)
    }

    /// Writes all.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            if let Ok(written) = ready.try_io(|fd| Ok(write(fd, bytes)?)) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }
}
