//! Randomness.

use std::{fs::File, io};

/// Has the kernel make its generators anew of the pool now, and not when it would come to it.
pub(super) fn renew() -> io::Result<()> {
    crate::sys::reseed(&File::options().write(true).open("/dev/random")?)
}

/// Gives the kernel's pool the host's random bytes, in full 64-byte blocks.
pub(super) fn add(bytes: &[u8]) -> io::Result<()> {
    let pool = File::options().write(true).open("/dev/random")?;
    for block in bytes.as_chunks().0 {
        crate::sys::add_entropy(&pool, block)?;
    }
    Ok(())
}
