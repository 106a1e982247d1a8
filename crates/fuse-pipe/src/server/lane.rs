//! A lane: frames in, frames out.

use std::{
    io::{self, ErrorKind, Write as _},
    mem,
    sync::{Arc, Mutex, PoisonError, TryLockError},
    thread::{self, Scope},
};

use rustix::io::Errno;

use super::{
    dispatch::{self, Answer},
    relief::Relief,
    reply::Reply,
    statistics::Counters,
    sys,
};
use crate::{
    abi::InHeader,
    passthrough::{Passthrough, Wait},
    spin::{Spin, Spinner, Spins},
    stream::Stream,
};

/// The largest data of a request, and the largest frame: with a header, and room for what comes before data.
pub(crate) const MAX_DATA: usize = 1 << 20;
pub(crate) const MAX_FRAME: usize = MAX_DATA + (64 << 10);
/// How much is read at once where a frame begins: several small ones often come together.
const AHEAD: usize = 16 << 10;
/// Stack of a thread that waits for a lock and does nothing else, in bytes.
const WAITER_STACK: usize = 128 << 10;

/// A stream and who uses it.
#[derive(Debug)]
pub(super) struct Lane {
    stream: Stream,
    /// What no other lane of its client is.
    number: u64,
    counters: Arc<Counters>,
    /// Whoever has it leads.
    incoming: Mutex<Incoming>,
    relief: Relief,
    /// Whoever has it writes a whole frame.
    outgoing: Mutex<()>,
}

/// What was read of the stream and belongs to no frame that was taken.
#[derive(Debug)]
struct Incoming {
    bytes: Box<[u8]>,
    /// Where the next frame begins.
    start: usize,
    /// How far there is something.
    end: usize,
    ended: bool,
    /// Of whoever leads.
    spinner: Spinner,
}

impl Lane {
    pub(super) fn new(stream: Stream, number: u64, spin: Spin, counters: Arc<Counters>) -> io::Result<Self> {
        let (incoming, relief) = (Mutex::new(Incoming::new(spin)), Relief::new(&stream)?);
        Ok(Self { stream, number, counters, incoming, relief, outgoing: Mutex::default() })
    }

    /// Takes frames and answers them until the stream ends. What waits does so in a thread of the scope.
    pub(super) fn work<'scope>(
        &'scope self,
        files: &Passthrough,
        scope: &'scope Scope<'scope, '_>,
    ) -> io::Result<()> {
        // A mask for new files of this thread's own.
        sys::own_mask()?;
        let closes = CloseUnlessDone(self);
        let result = self.turns(files, scope);
        if result.is_ok() {
            mem::forget(closes);
        }
        result
    }

    fn turns<'scope>(&'scope self, files: &Passthrough, scope: &'scope Scope<'scope, '_>) -> io::Result<()> {
        // As long as it ever had to be.
        let mut buffer = Vec::new();
        let mut reply = Reply::default();
        loop {
            let Some(length) = self.lead(&mut buffer)? else { return Ok(()) };
            let frame = &buffer[..length];
            self.counters.request(frame);
            match dispatch::answer(files, self.number, frame, &mut reply)? {
                Answer::Frame(answer) => {
                    self.counters.answer(frame, answer);
                    match self.send(answer) {
                        // The client has gone: so the others will find.
                        Err(error)
                            if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
                        {
                            return Ok(());
                        }
                        sent => sent?,
                    }
                    if let Some(directory) = reply.take_ahead() {
                        directory.read_ahead();
                    }
                }
                Answer::None => {}
                Answer::Later(wait) => {
                    let unique = wait.unique();
                    if self.start(wait, scope).is_err() {
                        self.send(reply.finish(unique, Err(Errno::NOLCK)))?;
                    }
                }
            }
        }
    }

    /// The next frame, at the beginning of `frame`, once it is this worker's turn; `None` at the stream's end.
    fn lead(&self, frame: &mut Vec<u8>) -> io::Result<Option<usize>> {
        let mut incoming = loop {
            match self.incoming.try_lock() {
                Ok(incoming) => break incoming,
                Err(TryLockError::Poisoned(poisoned)) => break poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => self.relief.wait()?,
            }
        };
        if incoming.is_empty() {
            self.relief.rest(&self.stream)?;
        }
        let length = incoming.take(&self.stream, frame, &self.counters.spins)?;
        let more = length.is_none() || !incoming.is_empty();
        // Whoever is woken finds that nobody leads.
        drop(incoming);
        if more {
            self.relief.call()?
        } else {
            self.relief.watch(&self.stream)?
        }
        Ok(length)
    }

    /// Sends a reply, or what answers nothing.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let _whole = self.outgoing.lock().unwrap_or_else(PoisonError::into_inner);
        (&self.stream).write_all(frame)
    }

    /// Waits in a thread, and answers from there.
    fn start<'scope>(&'scope self, wait: Wait, scope: &'scope Scope<'scope, '_>) -> io::Result<()> {
        let waiter = thread::Builder::new().name("fuse-lock".into()).stack_size(WAITER_STACK);
        let run = move || {
            let unique = wait.unique();
            let mut reply = Reply::default();
            reply.begin();
            if self.send(reply.finish(unique, wait.run())).is_err() {
                self.close();
            }
        };
        waiter.spawn_scoped(scope, run).map(drop)
    }

    /// Wakes all that wait for the stream.
    pub(super) fn close(&self) {
        if let Err(error) = self.stream.shutdown() {
            tracing::debug!(%error, "a lane stays open for its other workers");
        }
        if let Err(error) = self.relief.call() {
            tracing::debug!(%error, "nobody is told that a lane closes");
        }
    }
}

/// A worker that fails or panics leaves nobody waiting for it.
struct CloseUnlessDone<'a>(&'a Lane);

impl Drop for CloseUnlessDone<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Incoming {
    fn new(spin: Spin) -> Self {
        let spinner = Spinner::new(spin);
        Self { bytes: vec![0; AHEAD].into(), start: 0, end: 0, ended: false, spinner }
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The next whole frame, at the beginning of `frame`: its length, `None` at the stream's end. What of a large
    /// one has not been read ahead goes where it is wanted at once.
    fn take(&mut self, stream: &Stream, frame: &mut Vec<u8>, spins: &Spins) -> io::Result<Option<usize>> {
        if self.ended || !self.want_header(stream, spins)? {
            return Ok(None);
        }
        let length = &self.bytes[self.start..self.start + 4];
        let length = u32::from_ne_bytes(length.try_into().map_err(io::Error::other)?) as usize;
        if !(size_of::<InHeader>()..=MAX_FRAME).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a request of {length} bytes")));
        }
        if frame.len() < length {
            frame.resize(length, 0);
        }
        let mut have = length.min(self.end - self.start);
        frame[..have].copy_from_slice(&self.bytes[self.start..self.start + have]);
        self.start += have;
        while have < length {
            have += match read(stream.wait_and_read(&mut frame[have..length]))? {
                0 => {
                    self.ended = true;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                read => read,
            };
        }
        Ok(Some(length))
    }

    /// Reads until there is a header; `false` where the stream ends before it begins.
    fn want_header(&mut self, stream: &Stream, spins: &Spins) -> io::Result<bool> {
        while self.end - self.start < size_of::<InHeader>() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let look = |room: &mut [u8]| stream.try_read(room);
            let wait = |room: &mut [u8]| stream.wait_and_read(room).map(Some);
            let room = &mut self.bytes[self.end..];
            let read = read(self.spinner.obtain(spins, room, look, wait).map(Option::unwrap_or_default))?;
            self.end += read;
            if read == 0 {
                self.ended = true;
                return if self.end == 0 { Ok(false) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        Ok(true)
    }
}

/// What was read; 0 at the end.
fn read(result: Result<usize, Errno>) -> io::Result<usize> {
    match result {
        // Of a client that was killed.
        Err(Errno::CONNRESET) => Ok(0),
        read => Ok(read?),
    }
}
