//! Randomness.

use std::{fs::File, io};

/// Gives the kernel's pool the host's random bytes, in full 64-byte blocks.
pub(super) fn add(bytes: &[u8]) -> io::Result<()> {
    let pool = File::options().write(true).open("/dev/random")?;
    for block in bytes.as_chunks().0 {
        crate::sys::add_entropy(&pool, block)?;
    }
    Ok(())
}
