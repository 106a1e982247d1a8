//! A bound of what is read, which is moved on as the reader goes on.

use std::{
    cell::Cell,
    io::{self, Read},
    rc::Rc,
};

/// How many more bytes may be read; shared between the reader and who watches it.
#[derive(Debug, Clone, Default)]
pub(super) struct Allowance(Rc<Cell<u64>>);

impl Allowance {
    pub(super) fn set(&self, bytes: u64) {
        self.0.set(bytes);
    }
}

/// A reader that fails where more is read than is allowed.
#[derive(Debug)]
pub(super) struct Meter<R> {
    inner: R,
    left: Allowance,
}

impl<R: Read> Meter<R> {
    pub(super) fn new(inner: R, left: Allowance) -> Self {
        Self { inner, left }
    }
}

impl<R: Read> Read for Meter<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.0.get();
        if buffer.is_empty() {
            return Ok(0);
        }
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        if most == 0 {
            // The end is none too many.
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it has more than it needs")),
            };
        }
        let count = self.inner.read(&mut buffer[..most])?;
        self.left.0.set(left - count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_as_is_allowed_can_be_read() {
        let left = Allowance::default();
        let mut meter = Meter::new(&b"hello world"[..], left.clone());
        let mut five = [0; 5];
        assert_eq!(meter.read(&mut five).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut meter = Meter::new(&b"hello world"[..], left.clone());
        left.set(5);
        meter.read_exact(&mut five).unwrap();
        left.set(6);
        let mut rest = String::new();
        assert_eq!(meter.read_to_string(&mut rest).unwrap(), 6);
        assert_eq!((&five, rest.as_str()), (b"hello", " world"));
    }
}
