//! Whose turn it is on a lane.
//!
//! ```text
//!   leads: waits in a read ---- a frame ----> answers it -- nobody leads ---> leads again: nobody was woken
//!     ^                                          |
//!     |                                          '--------- another leads --> stands by: waits in Relief
//!     '------- woken, and nobody leads ------------------------------------------'
//! ```
//! To wake a thread costs more than most requests do, so a worker takes the next one itself, unless that comes
//! while it is busy. Meanwhile those who stand by watch the stream: the kernel wakes one of them as soon as
//! something comes, whatever the worker does and however long that takes. So a slow request holds up nobody,
//! and which those are need not be guessed.
//!
//! Nothing is lost between them. Who stops to lead has the stream watched before it answers, or, where it has
//! read more than its own frame, calls somebody who stands by. It does so after others can lead: whoever is
//! woken finds that nobody does. Only who leads has the stream unwatched; it waits for it itself. Who is called
//! while all are busy is whoever is ready first: a worker looks whether anybody leads before it stands by. One
//! who finds somebody leading was woken for nothing, which happens where the worker was faster after all.

use std::{
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use rustix::{
    event::{
        EventfdFlags,
        epoll::{self, EventData, EventFlags},
        eventfd,
    },
    io::{Errno, write},
};

use crate::stream::Stream;

/// Where the workers wait that neither lead nor answer.
#[derive(Debug)]
pub(super) struct Relief {
    epoll: OwnedFd,
    /// Never read: each write is news.
    call: OwnedFd,
    /// Whether the stream is watched. Where that is not quite so, somebody is woken for nothing.
    watched: AtomicBool,
}

impl Relief {
    pub(super) fn new(stream: &Stream) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &call, EventData::new_u64(0), EventFlags::IN | EventFlags::ET)?;
        epoll::add(&epoll, stream, EventData::new_u64(1), EventFlags::ONESHOT)?;
        Ok(Self { epoll, call, watched: AtomicBool::new(false) })
    }

    /// Waits until there may be something to do.
    pub(super) fn wait(&self) -> io::Result<()> {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        match epoll::wait(&self.epoll, &mut events, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Wakes one who waits, or else the next who begins to.
    pub(super) fn call(&self) -> io::Result<()> {
        match write(&self.call, &1_u64.to_ne_bytes()) {
            // It is full after 2^64 calls.
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// From now on whatever comes by the stream, or is there, wakes one who waits, once.
    pub(super) fn watch(&self, stream: &Stream) -> io::Result<()> {
        self.watched.store(true, Relaxed);
        Ok(epoll::modify(&self.epoll, stream, EventData::new_u64(1), EventFlags::IN | EventFlags::ONESHOT)?)
    }

    /// What comes by the stream wakes nobody any more: its leader waits for it. For the leader only.
    pub(super) fn rest(&self, stream: &Stream) -> io::Result<()> {
        if self.watched.swap(false, Relaxed) {
            epoll::modify(&self.epoll, stream, EventData::new_u64(1), EventFlags::ONESHOT)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, os::unix::net::UnixStream};

    use super::*;

    #[test]
    fn what_comes_while_the_stream_is_watched_or_came_before_wakes_one_once() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let stream = Stream::new(near).unwrap();
        let relief = Relief::new(&stream).unwrap();
        far.write_all(b"x").unwrap();
        relief.watch(&stream).unwrap();
        relief.wait().unwrap();
        // Only the call can end this one.
        relief.call().unwrap();
        relief.wait().unwrap();
        assert!(!is_awake(&relief), "each is told once");
        relief.watch(&stream).unwrap();
        relief.rest(&stream).unwrap();
        assert!(!is_awake(&relief), "its leader waits for it");
    }

    fn is_awake(relief: &Relief) -> bool {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        epoll::wait(&relief.epoll, &mut events, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }))
            .unwrap()
            > 0
    }
}
