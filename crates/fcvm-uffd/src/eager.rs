//! Who may look for its next fault without sleeping.
//!
//! To be woken takes longer than to serve a fault, and a guest that runs into pages it has not got runs into
//! the next one soon. But who looks uses a CPU that a guest could have.

use std::{
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    thread,
};

/// Seats for threads that look.
#[derive(Debug)]
pub(crate) struct Seats {
    free: AtomicUsize,
}

/// A seat that is taken.
#[derive(Debug)]
pub(crate) struct Seat<'a>(&'a Seats);

impl Seats {
    /// One for every two CPUs: the other one is for the guest that is served.
    pub(crate) fn new() -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        Self { free: AtomicUsize::new(cpus / 2) }
    }

    pub(crate) fn take(&self) -> Option<Seat<'_>> {
        let taken = self.free.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then_some(Seat(self))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_after_its_use() {
        let seats = Seats { free: AtomicUsize::new(1) };
        let taken = seats.take().unwrap();
        assert!(seats.take().is_none());
        drop(taken);
        assert!(seats.take().is_some());
    }
}
