//! The files that the client knows.

use std::{
    collections::HashMap,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustix::{
    fs::{AtFlags, FileType, Stat, Statx, StatxFlags, major, minor, statx},
    io::Errno,
};

use super::{
    kept::Kept,
    versions::Version,
    watch::{Place, Watcher},
};
use crate::abi::ROOT;

/// How many locks the nodes share.
const SHARDS: usize = 16;

/// What tells files apart, for as long as one of them is open: a node's is.
pub(super) type Key = (u32, u32, u64);

/// A file that the client knows.
#[derive(Debug)]
pub(crate) struct Node {
    fd: OwnedFd,
    key: Key,
    kind: FileType,
    /// How often the client has been told of it, and has not forgotten.
    known: AtomicU64,
    /// Its content, as of when the client last opened it.
    pub(super) seen: Mutex<Option<Version>>,
    /// For a client that opens nothing.
    pub(super) kept: Mutex<Kept>,
    place: Place,
}

impl Node {
    /// A file that the client is told of now.
    fn new(fd: OwnedFd, stat: &Statx, kind: FileType, place: Place) -> Self {
        let (seen, kept) = Default::default();
        Self { fd, key: key(stat), kind, known: AtomicU64::new(1), seen, kept, place }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// How often the client has been told of it.
    pub(super) fn known(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    pub(crate) fn kind(&self) -> FileType {
        self.kind
    }

    /// The device that it is on.
    pub(super) fn device(&self) -> (u32, u32) {
        (self.key.0, self.key.1)
    }

    /// What is noted of what the client knows.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// All that statx(2) tells.
    pub(crate) fn statx(&self) -> Result<Statx, Errno> {
        stat(&self.fd)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.place.close(self);
    }
}

fn stat(fd: &OwnedFd) -> Result<Statx, Errno> {
    statx(
        fd,
        c"",
        AtFlags::EMPTY_PATH | AtFlags::STATX_SYNC_AS_STAT,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}

fn key(stat: &Statx) -> Key {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

/// The same by fstat(2).
pub(super) fn key_of(stat: &Stat) -> Key {
    (major(stat.st_dev), minor(stat.st_dev), stat.st_ino)
}

/// Nodes by their numbers, and numbers by what tells files apart. Whoever has both locks took the second
/// while it had the first.
#[derive(Debug)]
pub(crate) struct Nodes {
    by_number: [RwLock<HashMap<u64, Arc<Node>>>; SHARDS],
    by_key: [RwLock<HashMap<Key, u64>>; SHARDS],
    next: AtomicU64,
    watcher: Option<Arc<Watcher>>,
}

impl Nodes {
    pub(super) fn new(root: OwnedFd, watcher: Option<Arc<Watcher>>) -> Result<Self, Errno> {
        let nodes = Self {
            by_number: Default::default(),
            by_key: Default::default(),
            next: AtomicU64::new(ROOT + 1),
            watcher,
        };
        let stat = stat(&root)?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let place = Place::new(nodes.watcher.as_ref(), ROOT);
        let node = Node::new(root, &stat, kind, place);
        write(&nodes.by_key[shard(node.key.2)]).insert(node.key, ROOT);
        write(&nodes.by_number[shard(ROOT)]).insert(ROOT, Arc::new(node));
        Ok(nodes)
    }

    /// The node of that number.
    ///
    /// # Errors
    /// `ESTALE` where there is none.
    pub(crate) fn get(&self, number: u64) -> Result<Arc<Node>, Errno> {
        read(&self.by_number[shard(number)]).get(&number).cloned().ok_or(Errno::STALE)
    }

    /// The number of a file that was found, new or not; it counts as told. What it is, too.
    pub(crate) fn tell(&self, fd: OwnedFd) -> Result<(u64, Statx), Errno> {
        let stat = stat(&fd)?;
        let key = key(&stat);
        let mut numbers = write(&self.by_key[shard(key.2)]);
        if let Some(&number) = numbers.get(&key)
            && let Some(node) = read(&self.by_number[shard(number)]).get(&number)
        {
            node.known.fetch_add(1, Ordering::Relaxed);
            return Ok((number, stat));
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let place = Place::new(self.watcher.as_ref(), number);
        let node = Node::new(fd, &stat, kind, place);
        write(&self.by_number[shard(number)]).insert(number, Arc::new(node));
        numbers.insert(key, number);
        Ok((number, stat))
    }

    /// All there are.
    pub(super) fn all(&self) -> Vec<(u64, Arc<Node>)> {
        let mut all = Vec::new();
        for shard in &self.by_number {
            all.extend(read(shard).iter().map(|(&number, node)| (number, Arc::clone(node))));
        }
        all
    }

    /// The last number that was given.
    pub(super) fn last(&self) -> u64 {
        self.next.load(Ordering::Relaxed) - 1
    }

    /// Gives other numbers than up to this.
    pub(super) fn skip_to(&self, last: u64) {
        self.next.fetch_max(last.saturating_add(1), Ordering::Relaxed);
    }

    /// Has a file that another process knew by this number, if it is that.
    ///
    /// # Errors
    /// `ESTALE` where it is another one, or known by another number.
    pub(super) fn restore(
        &self,
        number: u64,
        known: u64,
        fd: OwnedFd,
        is_it: impl FnOnce(&Statx) -> bool,
    ) -> Result<(), Errno> {
        let stat = stat(&fd)?;
        let key = key(&stat);
        let mut numbers = write(&self.by_key[shard(key.2)]);
        if !is_it(&stat) || numbers.contains_key(&key) {
            return Err(Errno::STALE);
        }
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let node = Node::new(fd, &stat, kind, Place::new(self.watcher.as_ref(), number));
        node.known.store(known, Ordering::Relaxed);
        write(&self.by_number[shard(number)]).insert(number, Arc::new(node));
        numbers.insert(key, number);
        Ok(())
    }

    /// The client has forgotten a node so many times. The root stays.
    pub(crate) fn forget(&self, number: u64, times: u64) {
        if number == ROOT {
            return;
        }
        let Ok(node) = self.get(number) else { return };
        let mut numbers = write(&self.by_key[shard(node.key.2)]);
        let before = node.known.load(Ordering::Relaxed);
        // A client that forgets more than it knows has forgotten it all.
        let left = before.saturating_sub(times);
        node.known.store(left, Ordering::Relaxed);
        if left == 0 {
            write(&self.by_number[shard(number)]).remove(&number);
            numbers.remove(&node.key);
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.by_number.iter().map(|shard| read(shard).len()).sum()
    }

    /// Forgets all but the root.
    pub(crate) fn clear(&self) {
        if let Ok(root) = self.get(ROOT) {
            root.place.reset();
        }
        for shard in &self.by_number {
            write(shard).retain(|number, _| *number == ROOT);
        }
        for shard in &self.by_key {
            write(shard).retain(|_, number| *number == ROOT);
        }
    }
}

fn shard(number: u64) -> usize {
    usize::try_from(number % SHARDS as u64).unwrap_or_default()
}

/// A worker that panicked has left no half of a change: each is one insertion or removal.
fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags, openat};

    use super::*;

    fn open(path: &std::path::Path) -> OwnedFd {
        openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap()
    }

    #[test]
    fn a_file_has_one_number_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let nodes = Nodes::new(open(directory.path()), None).unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "x").unwrap();
        std::fs::hard_link(&file, directory.path().join("link")).unwrap();
        let (number, stat) = nodes.tell(open(&file)).unwrap();
        assert_eq!((nodes.tell(open(&directory.path().join("link"))).unwrap().0, stat.stx_size), (number, 1));
        nodes.forget(number, 1);
        assert!(nodes.get(number).is_ok());
        nodes.forget(number, 99);
        assert_eq!(nodes.get(number).unwrap_err(), Errno::STALE);
        assert_ne!(nodes.tell(open(&file)).unwrap().0, number, "numbers are not used again");
        nodes.forget(ROOT, 99);
        nodes.clear();
        assert!(nodes.get(ROOT).is_ok());
    }
}
