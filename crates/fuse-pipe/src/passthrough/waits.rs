//! Who waits for a lock, and how a wait is ended.
//!
//! ```text
//!  Wait::new -> [registered] -> run, in a thread of its own: the call returns -> gone
//!                    | interrupt, end of its lane, end of the client
//!                    '-> its descriptor is replaced, its thread is signalled: EINTR
//! ```
//! A signal alone would come too early for a thread that is about to make its call, and be lost. So the wait
//! has a descriptor of its own, whose number is first made to stand for one that takes no locks. A call that
//! begins after that fails with `EBADF`. One that began before is in the kernel, where the signal that is sent
//! afterwards ends it. There is no time between the two.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    thread::Pid,
};

use super::{
    locks::{Asked, Patience},
    sys,
};

/// The most waits of a client: each has a thread.
const MOST: usize = 256;
/// How many interruptions are remembered that no wait was found for.
const MOST_EARLY: usize = 1024;

/// Where a request came from, and the answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    /// A number that no other lane has.
    pub(crate) lane: u64,
    /// The request's.
    pub(crate) unique: u64,
}

#[derive(Debug)]
struct Waiting {
    lane: u64,
    /// Of the open file description that is to have the lock, until the wait is ended.
    fd: Arc<OwnedFd>,
    /// Once it has begun.
    thread: Option<Pid>,
    ended: bool,
}

#[derive(Debug, Default)]
struct State {
    /// By the requests' numbers.
    waiting: HashMap<u64, Waiting>,
    /// Interrupted requests that were not found: they are answered already, are not of this kind, or come yet,
    /// since lanes do not wait for each other. The last so many, the oldest first.
    early: VecDeque<u64>,
}

/// All waits of a client.
#[derive(Debug)]
pub(crate) struct Waits {
    state: Mutex<State>,
    /// A descriptor that takes no locks: it was opened for its path only.
    no_locks: OwnedFd,
}

impl Waits {
    pub(super) fn new(no_locks: OwnedFd) -> Self {
        Self { state: Mutex::default(), no_locks }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one insertion or removal.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.state().waiting.len()
    }

    /// Ends the wait of that request, or of one that comes yet.
    pub(super) fn interrupt(&self, unique: u64) {
        let mut state = self.state();
        if let Some(waiting) = state.waiting.get_mut(&unique) {
            self.end(waiting);
            return;
        }
        if state.early.len() >= MOST_EARLY {
            state.early.pop_front();
        }
        state.early.push_back(unique);
    }

    /// Ends all waits whose answers would go to this lane.
    pub(super) fn end_lane(&self, lane: u64) {
        for waiting in self.state().waiting.values_mut().filter(|waiting| waiting.lane == lane) {
            self.end(waiting);
        }
    }

    /// Ends all waits, of a client that is gone.
    pub(super) fn end_all(&self) {
        let mut state = self.state();
        state.early.clear();
        for waiting in state.waiting.values_mut() {
            self.end(waiting);
        }
    }

    fn end(&self, waiting: &mut Waiting) {
        waiting.ended = true;
        // Neither can fail: both descriptors are open, and a thread that is registered lives.
        let ended = sys::replace(waiting.fd.as_fd(), self.no_locks.as_fd())
            .and_then(|()| waiting.thread.map_or(Ok(()), sys::wake));
        if let Err(errno) = ended {
            tracing::warn!(%errno, "a wait for a lock goes on");
        }
    }
}

/// A wait for a lock, which begins when it is run. It ends with its registration.
#[derive(Debug)]
pub(crate) struct Wait {
    waits: Arc<Waits>,
    asked: Asked,
    unique: u64,
    fd: Arc<OwnedFd>,
}

impl Wait {
    /// # Errors
    /// `EINTR` where it has been interrupted already, `ENOLCK` where too many wait, `EINVAL` where this
    /// request waits already.
    pub(super) fn new(waits: &Arc<Waits>, asked: Asked, origin: Origin) -> Result<Self, Errno> {
        let fd = Arc::new(fcntl_dupfd_cloexec(&asked, 0)?);
        let mut state = waits.state();
        if let Some(index) = state.early.iter().position(|&unique| unique == origin.unique) {
            state.early.remove(index);
            return Err(Errno::INTR);
        }
        if state.waiting.len() >= MOST {
            return Err(Errno::NOLCK);
        }
        if state.waiting.contains_key(&origin.unique) {
            return Err(Errno::INVAL);
        }
        let waiting = Waiting { lane: origin.lane, fd: Arc::clone(&fd), thread: None, ended: false };
        state.waiting.insert(origin.unique, waiting);
        drop(state);
        Ok(Self { waits: Arc::clone(waits), asked, unique: origin.unique, fd })
    }

    /// Which request waits.
    pub(crate) fn unique(&self) -> u64 {
        self.unique
    }

    /// Waits until the lock is set.
    ///
    /// # Errors
    /// `EINTR` where the wait was ended; the lock is not set then.
    pub(crate) fn run(self) -> Result<(), Errno> {
        let thread = sys::wakeable()?;
        if let Some(waiting) = self.waits.state().waiting.get_mut(&self.unique) {
            waiting.thread = Some(thread);
        }
        loop {
            match self.asked.set(self.fd.as_fd(), Patience::Endless) {
                Ok(()) => return Ok(()),
                Err(_) if self.has_ended() => return Err(Errno::INTR),
                // A signal that somebody else has sent.
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.waits.state().waiting.get(&self.unique).is_none_or(|waiting| waiting.ended)
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let gone = self.waits.state().waiting.remove(&self.unique);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{File, OpenOptions},
        thread,
    };

    use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

    use super::{super::locks, *};

    fn waits() -> Arc<Waits> {
        Arc::new(Waits::new(openat(CWD, "/", OFlags::PATH, Mode::empty()).unwrap()))
    }

    fn open(path: &std::path::Path) -> File {
        OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    const WHOLE: locks::Range =
        locks::Range { kind: locks::Kind::Exclusive, start: 0, end: locks::Range::LAST };

    fn of(lane: u64, unique: u64) -> Origin {
        Origin { lane, unique }
    }

    /// At any moment of a wait: before it begins, while it does, and when it has long been waiting.
    #[test]
    fn a_wait_ends_whenever_it_is_interrupted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let holder = open(file.path());
        sys::set_lock(holder.as_fd(), &WHOLE, Patience::None).unwrap();
        let waits = waits();
        for round in 0..2000 {
            let asked = Asked::Part(Arc::new(open(file.path())), WHOLE);
            let wait = Wait::new(&waits, asked, of(1, round)).unwrap();
            thread::scope(|scope| {
                let waiter = scope.spawn(|| wait.run());
                // Moments of different lengths, so that all steps are met.
                for _ in 0..round * 20 {
                    std::hint::spin_loop();
                }
                match round % 3 {
                    0 => waits.interrupt(round),
                    1 => waits.end_lane(1),
                    _ => waits.end_all(),
                }
                assert_eq!(waiter.join().unwrap(), Err(Errno::INTR), "{round}");
            });
            assert_eq!(waits.count(), 0);
        }
        drop(holder);
        // None of them has it.
        sys::set_lock(open(file.path()).as_fd(), &WHOLE, Patience::None).unwrap();
    }

    #[test]
    fn a_wait_that_was_interrupted_before_it_came_does_not_begin() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let waits = waits();
        let asked = || Asked::Part(Arc::new(open(file.path())), WHOLE);
        waits.interrupt(7);
        assert_eq!(Wait::new(&waits, asked(), of(1, 7)).unwrap_err(), Errno::INTR);
        // Only that one, and once.
        Wait::new(&waits, asked(), of(1, 7)).unwrap().run().unwrap();
        for unique in 0..5000 {
            waits.interrupt(unique);
        }
        assert_eq!(waits.state().early.len(), MOST_EARLY);
    }

    #[test]
    fn there_are_only_so_many_waits_and_each_lane_ends_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let holder = open(file.path());
        flock(&holder, FlockOperation::LockExclusive).unwrap();
        let waits = waits();
        let asked = || Asked::Part(Arc::new(open(file.path())), WHOLE);
        let all: Vec<_> = (0..MOST as u64)
            .map(|unique| Wait::new(&waits, asked(), of(unique % 2, unique)).unwrap())
            .collect();
        assert_eq!(Wait::new(&waits, asked(), of(0, 9999)).unwrap_err(), Errno::NOLCK);
        drop(all);
        let _one = Wait::new(&waits, asked(), of(0, 1)).unwrap();
        assert_eq!(Wait::new(&waits, asked(), of(0, 1)).unwrap_err(), Errno::INVAL);
        waits.end_lane(1);
        assert!(!waits.state().waiting[&1].ended);
        waits.end_lane(0);
        assert!(waits.state().waiting[&1].ended);
    }
}
