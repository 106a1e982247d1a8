//! The gate through which requests pass to the server: shut, a mount goes without one for a while.
//!
//! ```text
//!   open ---- shut() --------------> requests stay with the kernel
//!    ^                                 | threads of requests are parked
//!    |                                 | what has passed is answered; locks that are waited for are not
//!    |                                 v
//!    '---- open(), after the lanes have other streams, or the same ---- quiet
//! ```
//! Programs only see that an answer takes its time.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Instant,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::{Errno, read, write},
};

/// See the module.
#[derive(Debug)]
pub(super) struct Gate {
    /// How many threads stand before it.
    parked: Mutex<usize>,
    changed: Condvar,
    shut: AtomicBool,
    /// Readable while it is shut: who waits for a request wakes.
    wake: OwnedFd,
}

impl Gate {
    /// An open one.
    pub(super) fn new() -> Result<Self, Errno> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { parked: Mutex::new(0), changed: Condvar::new(), shut: AtomicBool::new(false), wake })
    }

    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(SeqCst)
    }

    /// What is readable while it is shut.
    pub(super) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shuts it; whether it was open.
    pub(super) fn shut(&self) -> bool {
        let _parked = self.lock();
        if self.shut.swap(true, SeqCst) {
            return false;
        }
        if let Err(errno) = write(&self.wake, &1_u64.to_ne_bytes()) {
            tracing::error!(%errno, "failed to wake the threads of a mount");
        }
        true
    }

    /// Opens it. Whoever stands before it goes on.
    pub(super) fn open(&self) {
        let _parked = self.lock();
        self.shut.store(false, SeqCst);
        // There is nothing in it where nobody has shut it.
        let _count: Result<usize, Errno> = read(&self.wake, &mut [0; 8]);
        self.changed.notify_all();
    }

    /// Something has happened that may be waited for here.
    pub(super) fn changed(&self) {
        let _parked = self.lock();
        self.changed.notify_all();
    }

    /// The same, of something that is only waited for while it is shut.
    pub(super) fn progressed(&self) {
        if self.is_shut() {
            self.changed();
        }
    }

    /// A thread of requests stands before it until it is open, or `over`.
    pub(super) fn park(&self, over: impl Fn() -> bool) {
        let mut parked = self.lock();
        *parked += 1;
        self.changed.notify_all();
        while self.is_shut() && !over() {
            parked = self.changed.wait(parked).unwrap_or_else(PoisonError::into_inner);
        }
        *parked -= 1;
    }

    /// Waits until `enough` of the number of threads that stand before it; whether that was in time.
    pub(super) fn wait_until(&self, deadline: Instant, enough: impl Fn(usize) -> bool) -> bool {
        let mut parked = self.lock();
        while !enough(*parked) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            (parked, _) = self.changed.wait_timeout(parked, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Waits for what another thread brings while it is shut; `None` where it opens without, or it is `over`.
    pub(super) fn wait_for<T>(&self, over: impl Fn() -> bool, brought: impl Fn() -> Option<T>) -> Option<T> {
        let mut parked = self.lock();
        loop {
            if let Some(brought) = brought() {
                return Some(brought);
            }
            if !self.is_shut() || over() {
                return None;
            }
            parked = self.changed.wait(parked).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Duration};

    use super::*;

    #[test]
    fn who_stands_before_it_goes_on_when_it_opens() {
        let gate = Arc::new(Gate::new().unwrap());
        assert!(gate.shut() && !gate.shut());
        let other = Arc::clone(&gate);
        let parked = thread::spawn(move || other.park(|| false));
        let soon = || Instant::now() + Duration::from_secs(30);
        assert!(gate.wait_until(soon(), |parked| parked == 1));
        assert!(!gate.wait_until(Instant::now(), |parked| parked == 2));
        gate.open();
        parked.join().unwrap();
        assert!(gate.wait_until(soon(), |parked| parked == 0));
        assert_eq!(gate.wait_for(|| false, || None::<()>), None, "it is open");
        // Nothing is left that would wake anybody.
        assert_eq!(read(gate.wake(), &mut [0; 8]), Err(Errno::AGAIN));
    }

    #[test]
    fn nobody_stands_before_it_when_all_is_over() {
        let gate = Gate::new().unwrap();
        gate.shut();
        gate.park(|| true);
        assert_eq!(gate.wait_for(|| true, || None::<()>), None);
        assert_eq!(gate.wait_for(|| true, || Some(5)), Some(5));
    }
}
