//! A reply, written in place: its buffer is a worker's and used again and again.

use std::sync::Arc;

use rustix::io::Errno;
use zerocopy::{Immutable, IntoBytes};

use crate::{abi::OutHeader, passthrough::Handle};

/// A header's length in bytes.
const HEADER: usize = size_of::<OutHeader>();

/// What goes back for one request.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// As long as it ever had to be: to empty it for each reply would cost as much as to fill it.
    bytes: Vec<u8>,
    /// How much of it this reply has.
    length: usize,
    /// A directory that is to be read ahead once this has gone.
    ahead: Option<Arc<Handle>>,
}

impl Reply {
    /// Empties it for the next request.
    pub(crate) fn begin(&mut self) {
        self.length = 0;
        self.room(HEADER);
        self.length = HEADER;
        self.ahead = None;
    }

    /// Has a directory read ahead once this has gone.
    pub(crate) fn read_ahead(&mut self, directory: Arc<Handle>) {
        self.ahead = Some(directory);
    }

    /// What is to be read ahead, now that this has gone.
    pub(crate) fn take_ahead(&mut self) -> Option<Arc<Handle>> {
        self.ahead.take()
    }

    /// Room for so many bytes more, which may have any content.
    fn room(&mut self, length: usize) -> &mut [u8] {
        let end = self.length + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.length..end]
    }

    /// Adds a structure.
    pub(crate) fn put(&mut self, value: &(impl IntoBytes + Immutable)) {
        self.bytes(value.as_bytes());
    }

    /// Adds bytes.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.length += bytes.len();
    }

    /// Lets `fill` write up to so many bytes and say how many they are.
    pub(crate) fn fill(
        &mut self,
        most: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, Errno>,
    ) -> Result<(), Errno> {
        let filled = fill(self.room(most))?;
        self.length += filled.min(most);
        Ok(())
    }

    /// How many bytes of body there are.
    pub(crate) fn len(&self) -> usize {
        self.length - HEADER
    }

    /// Takes back what is behind so many bytes of body.
    pub(crate) fn cut(&mut self, length: usize) {
        self.length = self.length.min(HEADER + length);
    }

    /// The whole frame: of an error it has no body.
    pub(crate) fn finish(&mut self, unique: u64, result: Result<(), Errno>) -> &[u8] {
        if result.is_err() {
            self.cut(0);
        }
        let error = result.err().map_or(0, |errno| -errno.raw_os_error());
        let len = u32::try_from(self.length).unwrap_or(u32::MAX);
        let header = OutHeader { len, error, unique };
        self.bytes[..HEADER].copy_from_slice(header.as_bytes());
        &self.bytes[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_says_its_length_and_an_error_has_no_body() {
        let mut reply = Reply::default();
        reply.begin();
        reply.put(&0x0102_u64);
        reply
            .fill(100, |to| {
                to[..3].copy_from_slice(b"abc");
                Ok(3)
            })
            .unwrap();
        assert_eq!(reply.len(), 11);
        let frame = reply.finish(9, Ok(())).to_vec();
        assert_eq!((frame.len(), &frame[..16]), (27, OutHeader { len: 27, error: 0, unique: 9 }.as_bytes()));
        assert_eq!(&frame[24..], b"abc");
        let frame = reply.finish(9, Err(Errno::NOENT));
        assert_eq!(frame, OutHeader { len: 16, error: -2, unique: 9 }.as_bytes());
    }
}
