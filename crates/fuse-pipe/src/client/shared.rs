//! What the threads of a mount have in common: how far it is, and why it ended.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, epoll, eventfd, poll},
    io::{Errno, write},
};

use super::{ended::Ended, gate::Gate, notify::Notifications};
use crate::spin::Spins;

/// How far a mount is; it never goes back.
#[derive(Debug, Clone, Copy)]
pub(super) enum Progress {
    /// The server has not answered the kernel's first request.
    Starting,
    /// It has.
    Serving,
    Ended(Ended),
}

/// Why a thread woke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// There may be something.
    Ready,
    /// The mount has ended.
    Stop,
}

#[derive(Debug)]
pub(super) struct Shared {
    progress: Mutex<Progress>,
    changed: Condvar,
    /// Readable once the mount has ended, and never read: it wakes all.
    stop: OwnedFd,
    stopped: AtomicBool,
    /// Where the kernel shows it, the file that ends all requests of the connection. Held open: its number
    /// may be another connection's later.
    abort: Option<File>,
    pub(super) notifications: Notifications,
    pub(super) gate: Gate,
    pub(super) counters: Vec<Counters>,
}

impl Shared {
    pub(super) fn new(lanes: usize, abort: Option<File>) -> Result<Self, Errno> {
        Ok(Self {
            progress: Mutex::new(Progress::Starting),
            changed: Condvar::new(),
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            stopped: AtomicBool::new(false),
            abort,
            notifications: Notifications::default(),
            gate: Gate::new()?,
            counters: (0..lanes).map(|_| Counters::default()).collect(),
        })
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server has answered the kernel's first request.
    pub(super) fn serving(&self) {
        let mut progress = self.progress();
        if matches!(*progress, Progress::Starting) {
            *progress = Progress::Serving;
            self.changed.notify_all();
        }
    }

    /// The mount ends; who says so first says why.
    pub(super) fn end(&self, reason: Ended) {
        let mut progress = self.progress();
        if matches!(*progress, Progress::Ended(_)) {
            return;
        }
        *progress = Progress::Ended(reason);
        self.stopped.store(true, Relaxed);
        self.notifications.close();
        if let Err(errno) = write(&self.stop, &1_u64.to_ne_bytes()) {
            tracing::error!(%errno, "failed to wake the threads of a mount");
        }
        if let Some(mut abort) = self.abort.as_ref()
            && let Err(error) = abort.write_all(b"1")
        {
            // Without it the same happens as soon as the threads have closed their descriptors.
            tracing::debug!(%error, "failed to abort the connection");
        }
        drop(progress);
        self.changed.notify_all();
        self.gate.changed();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.stopped.load(Relaxed)
    }

    /// Waits until the server has answered, the mount has ended, or it is too late.
    pub(super) fn wait_until_started(&self, deadline: Instant) -> Progress {
        let mut progress = self.progress();
        while matches!(*progress, Progress::Starting) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (progress, _) = self.changed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner);
        }
        *progress
    }

    pub(super) fn wait_until_ended(&self) -> Ended {
        let mut progress = self.progress();
        loop {
            if let Progress::Ended(reason) = *progress {
                return reason;
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until `descriptor` takes more, or the mount has ended.
    pub(super) fn wait_writable(&self, descriptor: impl AsFd) -> Result<Wake, Errno> {
        let mut both = [PollFd::new(&descriptor, PollFlags::OUT), PollFd::new(&self.stop, PollFlags::IN)];
        loop {
            match poll(&mut both, None) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
                Ok(_) if both[1].revents().is_empty() => return Ok(Wake::Ready),
                Ok(_) => return Ok(Wake::Stop),
            }
        }
    }
}

/// By which a waiter knows that the gate has woken it.
const GATE: u64 = 2;

/// Waits until a descriptor has something to read, or the mount has ended.
#[derive(Debug)]
pub(super) struct Waiter<'a> {
    epoll: OwnedFd,
    shared: &'a Shared,
}

impl<'a> Waiter<'a> {
    /// Of all lanes' threads that wait for a request the kernel wakes one: the others would wake for
    /// nothing. That is what a plain read does too, but out of that no thread can be woken.
    pub(super) fn new(descriptor: impl AsFd, shared: &'a Shared) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64;
        epoll::add(&epoll, descriptor, data(0), epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE)?;
        epoll::add(&epoll, &shared.stop, data(1), epoll::EventFlags::IN)?;
        Ok(Self { epoll, shared })
    }

    /// The same of a device, or until the gate is shut.
    pub(super) fn for_requests(device: impl AsFd, shared: &'a Shared) -> Result<Self, Errno> {
        let waiter = Self::new(device, shared)?;
        epoll::add(
            &waiter.epoll,
            shared.gate.wake(),
            epoll::EventData::new_u64(GATE),
            epoll::EventFlags::IN,
        )?;
        Ok(waiter)
    }

    /// What `look` finds; `None` where the mount has ended, or the gate is shut. Who was woken for nothing, since
    /// another lane was faster, sleeps again.
    pub(super) fn wait_for<T>(
        &self,
        mut look: impl FnMut() -> Result<Option<T>, Errno>,
    ) -> Result<Option<T>, Errno> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        loop {
            match epoll::wait(&self.epoll, &mut events, None) {
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
                Ok(_) if self.shared.has_ended() => return Ok(None),
                // A copy: the structure is packed.
                Ok(_) if { events[0].data }.u64() == GATE => return Ok(None),
                Ok(_) => {}
            }
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
        }
    }
}

/// What one lane has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStatistics {
    /// Requests of the kernel that were passed on.
    pub requests: u64,
    /// Their bytes, headers included.
    pub request_bytes: u64,
    /// Replies and notifications of the server that were passed on.
    pub replies: u64,
    /// Their bytes, headers included.
    pub reply_bytes: u64,
    /// How often looking again spared a thread its sleep.
    pub spins_hit: u64,
    /// How often it did not.
    pub spins_missed: u64,
}

/// The same, while it is counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) requests: AtomicU64,
    pub(super) request_bytes: AtomicU64,
    pub(super) replies: AtomicU64,
    pub(super) reply_bytes: AtomicU64,
    pub(super) spins: Spins,
}

impl Counters {
    pub(super) fn add(counter: &AtomicU64, number: usize) {
        counter.fetch_add(number as u64, Relaxed);
    }

    pub(super) fn read(&self) -> LaneStatistics {
        LaneStatistics {
            requests: self.requests.load(Relaxed),
            request_bytes: self.request_bytes.load(Relaxed),
            replies: self.replies.load(Relaxed),
            reply_bytes: self.reply_bytes.load(Relaxed),
            spins_hit: self.spins.hit(),
            spins_missed: self.spins.missed(),
        }
    }
}
