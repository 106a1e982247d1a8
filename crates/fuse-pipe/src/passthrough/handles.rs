//! Files that the client has open.

use std::{
    collections::HashMap,
    fs::File,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::io::Errno;

use super::listing::Listing;

/// The most handles that a client may have: what a process may have files, at best.
const MOST: usize = 1 << 20;

/// An open file or directory.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) file: File,
    /// How far a directory has been read: whoever does moves the file's position.
    pub(super) listing: Mutex<Listing>,
}

impl Handle {
    pub(crate) fn new(file: File) -> Self {
        Self { file, listing: Mutex::default() }
    }

    /// Reads on in a directory, for the next request.
    pub(crate) fn read_ahead(&self) {
        let mut listing = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        if listing.lacks()
            && let Err(error) = listing.read_on(&self.file)
        {
            tracing::debug!(%error, "a directory is not read ahead");
        }
    }
}

/// Handles by their numbers. There is no 0.
#[derive(Debug, Default)]
pub(crate) struct Handles {
    open: RwLock<HashMap<u64, Arc<Handle>>>,
    last: AtomicU64,
}

impl Handles {
    /// Keeps a file; its number.
    ///
    /// # Errors
    /// `ENFILE` where there are too many.
    pub(crate) fn add(&self, file: File) -> Result<u64, Errno> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST {
            return Err(Errno::NFILE);
        }
        open.insert(number, Arc::new(Handle::new(file)));
        Ok(number)
    }

    /// The handle of that number.
    ///
    /// # Errors
    /// `EBADF` where there is none.
    pub(crate) fn get(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&number).cloned().ok_or(Errno::BADF)
    }

    /// Closes it, once nobody uses it any more.
    pub(crate) fn remove(&self, number: u64) {
        // The file is closed after the lock is given back: that may take long.
        let removed = self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
        drop(removed);
    }

    /// All there are.
    pub(super) fn all(&self) -> Vec<(u64, Arc<Handle>)> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|(&number, handle)| (number, Arc::clone(handle))).collect()
    }

    /// The last number that was given.
    pub(super) fn last(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// Gives other numbers than up to this.
    pub(super) fn skip_to(&self, last: u64) {
        self.last.fetch_max(last, Ordering::Relaxed);
    }

    /// Keeps a file by the number that it had in another process.
    pub(super) fn restore(&self, number: u64, file: File) {
        let handle = Arc::new(Handle::new(file));
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, handle);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.open.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Closes all.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.open.write().unwrap_or_else(PoisonError::into_inner));
        drop(all);
    }
}
