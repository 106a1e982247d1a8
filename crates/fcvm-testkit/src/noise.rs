//! Bytes to send about, and their digests.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// Bytes that do not compress, the same each time.
#[derive(Debug, Clone)]
pub struct Noise {
    state: u64,
    left: usize,
}

impl Noise {
    /// A source of that many.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15, left: length }
    }
}

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        for chunk in buffer.chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let length = chunk.len().min(self.left);
            chunk[..length].copy_from_slice(&self.state.to_le_bytes()[..length]);
            self.left -= length;
            filled += length;
        }
        Ok(filled)
    }
}

/// That many bytes that do not compress.
#[must_use]
pub fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Noise::new(length).read_exact(&mut bytes).unwrap();
    bytes
}

/// The hexadecimal SHA-256 of all that can be read.
pub fn sha256(mut reader: impl Read) -> String {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => return hex::encode(hash.finalize()),
            read => hash.update(&buffer[..read]),
        }
    }
}
