//! Who may look for its next fault without sleeping.
//!
//! To be woken takes longer than to serve a fault, and a guest that runs into pages it has not got runs into
//! the next one soon. But who looks uses a CPU; where others want it, the guest that was just woken may be
//! one of them, and would come later instead of sooner.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    thread,
    time::Instant,
};

/// How long it is believed whether CPUs are free.
const BELIEVED_MS: u64 = 5;

/// Seats for threads that look.
#[derive(Debug)]
pub(crate) struct Seats {
    free: AtomicUsize,
    cpus: usize,
    load: Option<File>,
    begun: Instant,
    /// Twice the milliseconds after which the load is to be read anew, plus one if CPUs are free.
    belief: AtomicU64,
}

/// A seat that is taken.
#[derive(Debug)]
pub(crate) struct Seat<'a>(&'a Seats);

impl Seats {
    /// One for every two CPUs: the other one is for the guest that is served.
    pub(crate) fn new() -> Self {
        let cpus = thread::available_parallelism().map_or(1, usize::from);
        let load = File::open("/proc/loadavg").ok();
        Self {
            free: AtomicUsize::new(cpus / 2),
            cpus,
            load,
            begun: Instant::now(),
            belief: AtomicU64::new(0),
        }
    }

    pub(crate) fn take(&self) -> Option<Seat<'_>> {
        if !self.cpus_are_free() {
            return None;
        }
        let taken = self.free.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then_some(Seat(self))
    }

    /// Whether there is a CPU for each thread of the host that wants one.
    fn cpus_are_free(&self) -> bool {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX >> 1);
        let belief = self.belief.load(Relaxed);
        if now < belief / 2 {
            return belief & 1 == 1;
        }
        let mut line = [0; 128];
        let count = self.load.as_ref().and_then(|load| load.read_at(&mut line, 0).ok()).unwrap_or(0);
        let free = running(&line[..count]).is_some_and(|running| running <= self.cpus);
        self.belief.store((now + BELIEVED_MS) * 2 + u64::from(free), Relaxed);
        free
    }
}

/// How many threads run or want to: the fourth field of `/proc/loadavg`, before its slash.
fn running(load: &[u8]) -> Option<usize> {
    let field = std::str::from_utf8(load).ok()?.split(' ').nth(3)?;
    field.split_once('/')?.0.parse().ok()
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
        // Free CPUs are believed in for long enough.
        let seats =
            Seats { free: AtomicUsize::new(1), belief: AtomicU64::new(u64::MAX), load: None, ..Seats::new() };
        let taken = seats.take().unwrap();
        assert!(seats.take().is_none());
        drop(taken);
        assert!(seats.take().is_some());
    }

    #[test]
    fn nobody_looks_where_the_load_is_not_known() {
        let seats = Seats { free: AtomicUsize::new(1), load: None, ..Seats::new() };
        assert!(seats.take().is_none());
    }

    #[test]
    fn threads_that_run_are_counted_as_the_kernel_writes_them() {
        assert_eq!(running(b"0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(running(b"0.20 0.18 0.12"), None);
        assert_eq!(running(b""), None);
    }
}
