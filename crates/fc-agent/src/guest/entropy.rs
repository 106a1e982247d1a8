//! Randomness.

use std::{fs::File, io};

/// The kernel's pool of randomness.
#[derive(Debug)]
pub(super) struct Pool(File);

impl Pool {
    /// # Errors
    /// Where there is no `/dev/random`.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(File::options().write(true).open("/dev/random")?))
    }

    /// Gives it the host's random bytes, in full 64-byte blocks.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn add(&self, bytes: &[u8]) -> io::Result<()> {
        bytes.as_chunks().0.iter().try_for_each(|block| crate::sys::add_entropy(&self.0, block))
    }

    /// Has the kernel make its generators anew of the pool now, and not when it would come to it.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn renew(&self) -> io::Result<()> {
        crate::sys::reseed(&self.0)
    }
}
