//! The two threads of a lane.
//!
//! ```text
//!   /dev/fuse --request--> [requests] --> stream       waits for either side
//!   /dev/fuse <--reply---- [replies]  <-- stream       waits for the stream only
//! ```
//! The second never waits for the first: a server that answers before it reads more would else hold both
//! up. At the mount's end the first, which can be woken, ends the second's stream. Frames pass as they are.
//! Whichever thread finds that the mount is at its end says so to all.
//!
//! While the [gate](super::gate) is shut the first stands before it. The second goes on; where its stream ends it
//! waits for the next.

use std::{
    io::{self, Write as _},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::io::Errno;

use super::{
    device::Device,
    ended::Ended,
    frames::{Frame, Frames},
    owed::Owed,
    shared::{Counters, Shared, Waiter, Wake},
};
use crate::{
    spin::{Spin, Spinner},
    stream::Stream,
};

/// One descriptor, one stream at a time.
#[derive(Debug)]
pub(super) struct Lane {
    number: u16,
    device: Device,
    stream: Mutex<Arc<Stream>>,
    /// Requests are no larger: the kernel itself refuses what does not fit.
    largest: usize,
    spin: Spin,
    pub(super) owed: Owed,
}

/// Starts a lane's threads; they end with the mount.
pub(super) fn start(
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    threads: &mut Vec<JoinHandle<()>>,
) -> io::Result<()> {
    let number = lane.number;
    let (lane, other) = (Arc::clone(lane), Arc::clone(lane));
    let requests = move |shared: &Shared| {
        let _end = EndStream(&lane, shared);
        // Why comes before the other thread finds that it has no stream any more.
        shared.end(lane.requests(shared));
        None
    };
    // This one first: it ends the other's stream.
    threads.push(spawn(format!("fuse{number}-requests"), shared, requests)?);
    threads.push(spawn(format!("fuse{number}-replies"), shared, move |shared| Some(other.replies(shared)))?);
    Ok(())
}

/// A thread that says why it ended.
pub(super) fn spawn(
    name: String,
    shared: &Arc<Shared>,
    work: impl FnOnce(&Shared) -> Option<Ended> + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    thread::Builder::new().name(name).spawn(move || {
        let _guard = OnPanic(&shared);
        if let Some(reason) = work(&shared) {
            tracing::debug!(%reason, "a thread of a mount ended");
            shared.end(reason);
        }
    })
}

/// However the thread of requests ends, the other need not wait for the stream any more.
struct EndStream<'a>(&'a Lane, &'a Shared);

impl Drop for EndStream<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.1.end(Ended::Panicked);
        }
        end(&self.0.stream());
    }
}

fn end(stream: &Stream) {
    if let Err(error) = stream.shutdown() {
        tracing::debug!(%error, "a stream stays open");
    }
}

/// A thread that panics leaves nobody hanging.
struct OnPanic<'a>(&'a Shared);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.end(Ended::Panicked);
        }
    }
}

impl Lane {
    pub(super) fn new(number: u16, device: Device, stream: Stream, largest: usize, spin: Spin) -> Self {
        let stream = Mutex::new(Arc::new(stream));
        Self { number, device, stream, largest, spin, owed: Owed::default() }
    }

    fn place(&self) -> MutexGuard<'_, Arc<Stream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that it has now.
    fn stream(&self) -> Arc<Stream> {
        Arc::clone(&self.place())
    }

    /// The most that its requests have.
    pub(super) fn largest(&self) -> usize {
        self.largest
    }

    /// Goes over to another stream, while the gate is shut. Whoever is at its other end gets what it has to know.
    pub(super) fn follow(&self, stream: Stream, deadline: Instant) -> io::Result<()> {
        for request in self.owed.waits_for_locks() {
            stream.until(deadline).write_all(&request)?;
        }
        let before = mem::replace(&mut *self.place(), Arc::new(stream));
        end(&before);
        Ok(())
    }

    fn counters<'a>(&self, shared: &'a Shared) -> &'a Counters {
        &shared.counters[usize::from(self.number)]
    }

    fn requests(&self, shared: &Shared) -> Ended {
        let failed = |source| match source {
            Errno::NODEV | Errno::CONNABORTED => Ended::Unmounted,
            source => Ended::Requests { lane: self.number, source },
        };
        let waiter = match Waiter::for_requests(&self.device, shared) {
            Ok(waiter) => waiter,
            Err(errno) => return failed(errno),
        };
        let mut stream = self.stream();
        let (counters, mut spinner) = (self.counters(shared), Spinner::new(self.spin));
        let mut buffer = vec![0; self.largest];
        while !shared.has_ended() {
            if shared.gate.is_shut() {
                shared.gate.park(|| shared.has_ended());
                stream = self.stream();
                continue;
            }
            let look = |buffer: &mut [u8]| self.device.try_read(buffer);
            let request = spinner.obtain(&counters.spins, &mut buffer[..], look, |buffer| {
                // Under load there is something: then there is nothing to wait for.
                match look(buffer)? {
                    None => waiter.wait_for(|| look(buffer)),
                    found => Ok(found),
                }
            });
            let length = match request {
                Ok(Some(length)) => length,
                // It was woken for another reason.
                Ok(None) => continue,
                Err(errno) => return failed(errno),
            };
            self.owed.asked(&buffer[..length]);
            if let Err(reason) = self.send(&stream, &buffer[..length], shared) {
                return reason;
            }
            Counters::add(&counters.requests, 1);
            Counters::add(&counters.request_bytes, length);
        }
        Ended::Unmounted
    }

    fn send(&self, stream: &Stream, mut bytes: &[u8], shared: &Shared) -> Result<(), Ended> {
        while !bytes.is_empty() {
            match stream.try_write(bytes) {
                Ok(Some(written)) => bytes = &bytes[written..],
                Ok(None) => match shared.wait_writable(stream) {
                    Ok(Wake::Ready) => {}
                    Ok(Wake::Stop) => return Err(Ended::Unmounted),
                    Err(errno) => return Err(self.broke(errno)),
                },
                Err(errno) => return Err(self.broke(errno)),
            }
        }
        Ok(())
    }

    /// By one stream after the other.
    fn replies(&self, shared: &Shared) -> Ended {
        // The kernel asks for nothing else before its first request is answered, and that is on lane 0.
        let mut first = self.number == 0;
        loop {
            let stream = self.stream();
            let ended = self.replies_of(&stream, shared, &mut first);
            if !matches!(ended, Ended::Closed { .. } | Ended::Stream { .. }) {
                return ended;
            }
            let is_next = || !Arc::ptr_eq(&self.place(), &stream);
            let next = shared.gate.wait_for(|| shared.has_ended(), || is_next().then_some(()));
            if next.is_none() {
                return ended;
            }
        }
    }

    fn replies_of(&self, stream: &Stream, shared: &Shared, first: &mut bool) -> Ended {
        // The other thread ends a socket at the mount's end, which ends a read, too.
        let waiter = if stream.can_be_ended() { None } else { Some(Waiter::new(stream, shared)) };
        let waiter = match waiter.transpose() {
            Ok(waiter) => waiter,
            Err(errno) => return self.broke(errno),
        };
        let (counters, mut spinner) = (self.counters(shared), Spinner::new(self.spin));
        let mut frames = Frames::new();
        while !shared.has_ended() {
            let room = frames.room();
            let look = |room: &mut [u8]| stream.try_read(room);
            let wait = |room: &mut [u8]| match &waiter {
                None => stream.wait_and_read(room).map(Some),
                Some(waiter) => waiter.wait_for(|| look(room)),
            };
            match spinner.obtain(&counters.spins, room, look, wait) {
                Ok(Some(0)) => return Ended::Closed { lane: self.number },
                Ok(Some(read)) => frames.filled(read),
                Ok(None) => return Ended::Unmounted,
                Err(errno) => return self.broke(errno),
            }
            loop {
                let frame = match frames.next() {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(length) => return Ended::Length { lane: self.number, length: length.0 },
                };
                if let Err(reason) = self.deliver(&frame, shared, first) {
                    return reason;
                }
                Counters::add(&counters.replies, 1);
                Counters::add(&counters.reply_bytes, frame.bytes.len());
            }
        }
        Ended::Unmounted
    }

    fn deliver(&self, frame: &Frame<'_>, shared: &Shared, first: &mut bool) -> Result<(), Ended> {
        if frame.is_notification() {
            return shared.notifications.push(frame.bytes);
        }
        match self.device.write(frame.bytes) {
            // Who asked was interrupted, and waits no more.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NODEV | Errno::CONNABORTED) => return Err(Ended::Unmounted),
            Err(source) => return Err(Ended::Reply { lane: self.number, source }),
        }
        self.owed.answered(frame.unique);
        shared.gate.progressed();
        if mem::take(first) {
            if frame.error != 0 {
                return Err(Ended::Refused {
                    source: Errno::from_raw_os_error(frame.error.saturating_neg()),
                });
            }
            shared.serving();
        }
        Ok(())
    }

    fn broke(&self, source: Errno) -> Ended {
        match source {
            Errno::PIPE | Errno::CONNRESET => Ended::Closed { lane: self.number },
            source => Ended::Stream { lane: self.number, source },
        }
    }
}
