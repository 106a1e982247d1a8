//! A lane: frames in, frames out.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    sync::{Mutex, PoisonError},
};

use super::{dispatch, reply::Reply, sys};
use crate::{abi::InHeader, passthrough::Passthrough, stream::Stream};

/// The largest data of a request, and the largest frame: with a header, and room for what comes before data.
pub(crate) const MAX_DATA: usize = 1 << 20;
pub(crate) const MAX_FRAME: usize = MAX_DATA + (64 << 10);
/// How much is read at once beyond a frame that is wanted: several small ones often come together.
const AHEAD: usize = 16 << 10;

/// A stream and who uses it.
#[derive(Debug)]
pub(super) struct Lane {
    stream: Stream,
    incoming: Mutex<Incoming>,
    /// Whoever has it writes a whole frame.
    outgoing: Mutex<()>,
}

/// What was read of the stream and belongs to no frame that was taken.
#[derive(Debug, Default)]
struct Incoming {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    ended: bool,
}

impl Lane {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, incoming: Mutex::default(), outgoing: Mutex::default() }
    }

    /// Takes frames and answers them until the stream ends.
    pub(super) fn work(&self, files: &Passthrough) -> io::Result<()> {
        // A mask for new files of this thread's own.
        sys::own_mask()?;
        let result = self.turns(files);
        if result.is_err() {
            self.close();
        }
        result
    }

    fn turns(&self, files: &Passthrough) -> io::Result<()> {
        let mut frame = Vec::new();
        let mut reply = Reply::default();
        loop {
            {
                let mut incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
                if !incoming.take(&self.stream, &mut frame)? {
                    return Ok(());
                }
            }
            if let Some(answer) = dispatch::answer(files, &frame, &mut reply)? {
                let _whole = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
                (&self.stream).write_all(answer)?;
            }
        }
    }

    /// Wakes all that wait for the stream.
    fn close(&self) {
        if let Err(error) = self.stream.shutdown() {
            tracing::debug!(%error, "a lane stays open for its other workers");
        }
    }
}

impl Incoming {
    /// The next whole frame; `false` at the stream's end.
    fn take(&mut self, stream: &Stream, frame: &mut Vec<u8>) -> io::Result<bool> {
        frame.clear();
        if self.ended || !self.want(stream, size_of::<InHeader>())? {
            return Ok(false);
        }
        let length = &self.bytes[self.start..self.start + 4];
        let length = u32::from_ne_bytes(length.try_into().map_err(io::Error::other)?) as usize;
        if !(size_of::<InHeader>()..=MAX_FRAME).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a request of {length} bytes")));
        }
        if !self.want(stream, length)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frame.extend_from_slice(&self.bytes[self.start..self.start + length]);
        self.start += length;
        Ok(true)
    }

    /// Reads until there are so many bytes; `false` where the stream ends at the beginning of a frame.
    fn want(&mut self, stream: &Stream, length: usize) -> io::Result<bool> {
        while self.bytes.len() - self.start < length {
            self.bytes.drain(..self.start);
            self.start = 0;
            let had = self.bytes.len();
            self.bytes.resize(had + (length - had).max(AHEAD), 0);
            let mut stream = stream;
            let read = loop {
                match stream.read(&mut self.bytes[had..]) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Of a client that was killed.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset => break 0,
                    read => break read?,
                }
            };
            self.bytes.truncate(had + read);
            if read == 0 {
                self.ended = true;
                return if had == 0 { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        Ok(true)
    }
}
