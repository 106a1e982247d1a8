//! What a server has done, counted without a lock.

use std::{
    array,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::{
    abi::{InHeader, OutHeader},
    spin::Spins,
};

/// Operations have lower numbers than this; the others count as 0, which is none.
const OPERATIONS: usize = 64;
const READ: usize = 15;
const WRITE: usize = 16;

/// What a server has done, and has at the moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Requests by the number of FUSE's operation, where there were any; 0 for what is none.
    pub requests: Vec<(u32, u64)>,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
    /// Requests that were answered with an error, among them names that there are not.
    pub errors: u64,
    /// Files that the client knows: each has a descriptor.
    pub nodes: usize,
    /// Files that it has open.
    pub handles: usize,
    /// Descriptors for locks of fcntl(2), one for each file of each owner.
    pub lock_owners: usize,
    /// Requests that wait for a lock.
    pub lock_waits: usize,
    /// How often looking again spared a worker its sleep.
    pub spins_hit: u64,
    /// How often it did not.
    pub spins_missed: u64,
}

#[derive(Debug)]
pub(super) struct Counters {
    requests: [AtomicU64; OPERATIONS],
    read: AtomicU64,
    written: AtomicU64,
    errors: AtomicU64,
    pub(super) spins: Spins,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: array::from_fn(|_| AtomicU64::new(0)),
            read: AtomicU64::new(0),
            written: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            spins: Spins::default(),
        }
    }
}

fn number(frame: &[u8], at: usize) -> u32 {
    let bytes = frame.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

impl Counters {
    /// A request, as it came.
    pub(super) fn request(&self, frame: &[u8]) {
        self.requests[operation(frame)].fetch_add(1, Relaxed);
    }

    /// Its answer.
    pub(super) fn answer(&self, request: &[u8], frame: &[u8]) {
        let body = frame.len().saturating_sub(size_of::<OutHeader>()) as u64;
        if number(frame, 4) != 0 {
            self.errors.fetch_add(1, Relaxed);
        } else {
            match operation(request) {
                READ => self.read.fetch_add(body, Relaxed),
                // It says how much.
                WRITE => self.written.fetch_add(number(frame, size_of::<OutHeader>()).into(), Relaxed),
                _ => 0,
            };
        }
    }

    pub(super) fn statistics(&self) -> Statistics {
        let counts = self.requests.iter().map(|count| count.load(Relaxed));
        Statistics {
            requests: (0..).zip(counts).filter(|(_, count)| *count > 0).collect(),
            read: self.read.load(Relaxed),
            written: self.written.load(Relaxed),
            errors: self.errors.load(Relaxed),
            spins_hit: self.spins.hit(),
            spins_missed: self.spins.missed(),
            ..Statistics::default()
        }
    }
}

fn operation(frame: &[u8]) -> usize {
    const { assert!(size_of::<InHeader>() == 40) };
    usize::try_from(number(frame, 4)).ok().filter(|operation| *operation < OPERATIONS).unwrap_or(0)
}
