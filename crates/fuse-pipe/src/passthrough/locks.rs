//! Locks, which the host keeps: so they exclude other clients and the host's own programs.
//!
//! Of fcntl(2): an owner, which is a process there, has one open file description of each file that it locks,
//! and the host's locks belong to that (`F_OFD_SETLK`). It is closed when the owner closes the file, which by
//! POSIX takes away all locks that the owner has of it. (An owner may also be an open file description there, which
//! ends with its handle.) Nobody is told that owners wait for each other
//! (`EDEADLK`): the host cannot know. Of flock(2): the lock is of the client's own handle.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{FlockOperation, OFlags, flock},
    io::Errno,
};

use super::{
    Access, Passthrough,
    handles::Handle,
    sys,
    waits::{Origin, Wait, Waits},
};
use crate::abi::{FileLock, LK_FLOCK, LkIn};

/// The most descriptors for locks of a client.
const MOST: usize = 4096;

/// What a lock excludes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Who would write.
    Shared,
    /// All others.
    Exclusive,
    /// Nobody: it is taken away.
    None,
}

/// Whether a call waits until the lock is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    None,
    Endless,
}

/// Bytes of a file, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) kind: Kind,
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Range {
    /// The last byte that a file can have.
    pub(super) const LAST: u64 = i64::MAX.cast_unsigned();

    fn new(of: &FileLock) -> Result<Self, Errno> {
        if of.start > of.end || of.end > Self::LAST {
            return Err(Errno::INVAL);
        }
        Ok(Self { kind: kind(of)?, start: of.start, end: of.end })
    }
}

fn kind(of: &FileLock) -> Result<Kind, Errno> {
    match i32::try_from(of.kind) {
        Ok(libc::F_RDLCK) => Ok(Kind::Shared),
        Ok(libc::F_WRLCK) => Ok(Kind::Exclusive),
        Ok(libc::F_UNLCK) => Ok(Kind::None),
        _ => Err(Errno::INVAL),
    }
}

/// A lock that a client asks for.
#[derive(Debug)]
pub(super) enum Asked {
    /// Of a part of a file, for one of its owners.
    Part(Arc<File>, Range),
    /// Of a file, for a handle.
    Whole(Arc<Handle>, Kind),
}

impl Asked {
    /// Sets it by this descriptor, which is one of the open file description that has it.
    pub(super) fn set(&self, fd: BorrowedFd<'_>, patience: Patience) -> Result<(), Errno> {
        match (self, patience) {
            (Self::Part(_, range), _) => sys::set_lock(fd, range, patience),
            (Self::Whole(_, Kind::Shared), Patience::None) => {
                flock(fd, FlockOperation::NonBlockingLockShared)
            }
            (Self::Whole(_, Kind::Shared), Patience::Endless) => flock(fd, FlockOperation::LockShared),
            (Self::Whole(_, Kind::Exclusive), Patience::None) => {
                flock(fd, FlockOperation::NonBlockingLockExclusive)
            }
            (Self::Whole(_, Kind::Exclusive), Patience::Endless) => flock(fd, FlockOperation::LockExclusive),
            (Self::Whole(_, Kind::None), _) => flock(fd, FlockOperation::Unlock),
        }
    }
}

impl AsFd for Asked {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Part(file, _) => file.as_fd(),
            Self::Whole(handle, _) => handle.file.as_fd(),
        }
    }
}

/// What has become of a lock that was asked for.
#[derive(Debug)]
pub(crate) enum Locked {
    /// It is set.
    Now,
    /// Another is in the way. Whoever has time waits.
    Later(Wait),
}

/// Who has locks of what, and who waits for one.
#[derive(Debug)]
pub(crate) struct Locks {
    /// By node and owner.
    owners: Mutex<BTreeMap<(u64, u64), Owned>>,
    pub(super) waits: Arc<Waits>,
}

/// Where an owner's locks of a file are.
#[derive(Debug)]
struct Owned {
    file: Arc<File>,
    /// The handle by which the owner asked first. Who owns locks as an open file description has no other.
    fh: u64,
}

impl Locks {
    /// Waits are ended by means of a descriptor that takes no locks.
    pub(super) fn new(no_locks: OwnedFd) -> Self {
        Self { owners: Mutex::default(), waits: Arc::new(Waits::new(no_locks)) }
    }

    fn owners(&self) -> MutexGuard<'_, BTreeMap<(u64, u64), Owned>> {
        // Each change is one insertion or removal.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, node: u64, owner: u64) -> Option<Arc<File>> {
        self.owners().get(&(node, owner)).map(|owned| Arc::clone(&owned.file))
    }

    /// The descriptor of this owner: that one, unless there is another already.
    ///
    /// # Errors
    /// `ENOLCK` where there are too many.
    fn add(&self, node: u64, of: &LkIn, file: File) -> Result<Arc<File>, Errno> {
        let mut owners = self.owners();
        if owners.len() >= MOST && !owners.contains_key(&(node, of.owner)) {
            return Err(Errno::NOLCK);
        }
        let owned = owners.entry((node, of.owner)).or_insert_with(|| Owned { file: file.into(), fh: of.fh });
        Ok(Arc::clone(&owned.file))
    }

    /// Takes away all locks that an owner has of a file.
    pub(super) fn drop_owner(&self, node: u64, owner: u64) {
        // Closed without the lock: that may take long.
        let removed = self.owners().remove(&(node, owner));
        drop(removed);
    }

    /// A handle is closed. Of a process, whose locks went when it closed the file, there is nothing left; an open
    /// file description of the client's ends with this.
    pub(super) fn drop_handle(&self, node: u64, fh: u64) {
        let mut removed = Vec::new();
        let mut owners = self.owners();
        let of_node = owners.range((node, 0)..=(node, u64::MAX));
        let of_handle: Vec<_> = of_node.filter(|(_, owned)| owned.fh == fh).map(|(&key, _)| key).collect();
        removed.extend(of_handle.iter().filter_map(|key| owners.remove(key)));
        drop(owners);
        drop(removed);
    }

    /// How many descriptors there are for locks.
    pub(super) fn count(&self) -> usize {
        self.owners().len()
    }

    /// Takes away all locks, and ends all waits.
    pub(super) fn clear(&self) {
        self.waits.end_all();
        let all = std::mem::take(&mut *self.owners());
        drop(all);
    }
}

impl Passthrough {
    /// The lock that stands in the way of the one described. Whose it is, is not known: no process of the
    /// client's has the number 0.
    pub(crate) fn get_lock(&self, node: u64, of: &LkIn) -> Result<FileLock, Errno> {
        let range = Range::new(&of.lk)?;
        let file = match self.locks.get(node, of.owner) {
            Some(file) => file,
            None => Arc::new(self.open_for_lock(node)?),
        };
        let (kind, range) = match sys::test_lock(file.as_fd(), &range)? {
            None => (libc::F_UNLCK, range),
            Some(found) if found.kind == Kind::Shared => (libc::F_RDLCK, found),
            Some(found) => (libc::F_WRLCK, found),
        };
        Ok(FileLock { start: range.start, end: range.end, kind: kind.cast_unsigned(), pid: 0 })
    }

    /// Sets or takes away a lock, if that can be done at once.
    ///
    /// # Errors
    /// `EAGAIN` where another is in the way; `ENOLCK` where this client has too many.
    pub(crate) fn set_lock(&self, node: u64, of: &LkIn) -> Result<(), Errno> {
        match self.asked(node, of)? {
            None => Ok(()),
            Some(asked) => asked.set(asked.as_fd(), Patience::None),
        }
    }

    /// The same, or what waits until it can be done.
    ///
    /// # Errors
    /// `ENOLCK` where there are too many who wait.
    pub(crate) fn wait_for_lock(&self, node: u64, of: &LkIn, origin: Origin) -> Result<Locked, Errno> {
        let Some(asked) = self.asked(node, of)? else { return Ok(Locked::Now) };
        match asked.set(asked.as_fd(), Patience::None) {
            Ok(()) => Ok(Locked::Now),
            // POSIX allows either.
            Err(Errno::AGAIN | Errno::ACCESS) => {
                Ok(Locked::Later(Wait::new(&self.locks.waits, asked, origin)?))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Who waits for this answer wants it no more: what waits for a lock fails with `EINTR`.
    pub(crate) fn interrupt(&self, unique: u64) {
        self.locks.waits.interrupt(unique);
    }

    /// A lane is gone: nobody waits for its answers.
    pub(crate) fn end_lane(&self, lane: u64) {
        self.locks.waits.end_lane(lane);
    }

    /// `None` where there is nothing to take away.
    fn asked(&self, node: u64, of: &LkIn) -> Result<Option<Asked>, Errno> {
        if of.lk_flags & LK_FLOCK != 0 {
            return Ok(Some(Asked::Whole(self.handles.get(of.fh)?, kind(&of.lk)?)));
        }
        let range = Range::new(&of.lk)?;
        let file = match self.locks.get(node, of.owner) {
            Some(file) => file,
            None if range.kind == Kind::None => return Ok(None),
            None => self.locks.add(node, of, self.open_for_lock(node)?)?,
        };
        Ok(Some(Asked::Part(file, range)))
    }

    /// For both kinds of locks, or as the file allows: what cannot be written to has shared ones only.
    fn open_for_lock(&self, node: u64) -> Result<File, Errno> {
        let node = self.nodes.get(node)?;
        let read_only = || self.open_node(&node, OFlags::RDONLY | OFlags::NONBLOCK);
        if self.options.access == Access::ReadOnly {
            return read_only();
        }
        match self.open_node(&node, OFlags::RDWR | OFlags::NONBLOCK) {
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY | Errno::ISDIR) => read_only(),
            opened => opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustix::fs::{CWD, Mode, openat};

    use super::*;
    use crate::passthrough::Options;

    const FIRST: u64 = 7;
    const SECOND: u64 = 8;

    /// A directory with one file, and what a client knows of it.
    struct Table {
        directory: tempfile::TempDir,
        files: Passthrough,
        node: u64,
    }

    impl Table {
        fn new(access: Access) -> Self {
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("file"), "content").unwrap();
            let files = Passthrough::new(directory.path(), Options { access, ..Options::default() }).unwrap();
            let node = files.lookup(crate::abi::ROOT, c"file").unwrap().nodeid;
            Self { directory, files, node }
        }

        fn of(&self, owner: u64, kind: libc::c_int, start: u64, end: u64) -> LkIn {
            let lk = FileLock { start, end, kind: kind.cast_unsigned(), pid: 1 };
            LkIn { fh: owner * 10, owner, lk, ..LkIn::default() }
        }

        fn set(&self, owner: u64, kind: libc::c_int, start: u64, end: u64) -> Result<(), Errno> {
            self.files.set_lock(self.node, &self.of(owner, kind, start, end))
        }
    }

    fn host(path: &Path) -> File {
        openat(CWD, path, OFlags::RDWR, Mode::empty()).unwrap().into()
    }

    #[test]
    fn owners_exclude_each_other_byte_by_byte() {
        let table = Table::new(Access::ReadWrite);
        table.set(FIRST, libc::F_WRLCK, 0, 9).unwrap();
        table.set(SECOND, libc::F_WRLCK, 10, Range::LAST).unwrap();
        assert_eq!(table.set(SECOND, libc::F_RDLCK, 9, 9), Err(Errno::AGAIN));
        table.set(FIRST, libc::F_RDLCK, 5, 9).unwrap();
        table.set(SECOND, libc::F_RDLCK, 9, 9).unwrap();
        let found = table.files.get_lock(table.node, &table.of(SECOND, libc::F_WRLCK, 0, 20)).unwrap();
        assert_eq!((found.start, found.end, found.kind), (0, 4, 1));
        let found = table.files.get_lock(table.node, &table.of(99, libc::F_WRLCK, 9, 9)).unwrap();
        assert_eq!(found.kind, 0, "shared");
        let found = table.files.get_lock(table.node, &table.of(FIRST, libc::F_WRLCK, 0, 8)).unwrap();
        assert_eq!(found.kind, 2, "its own are not in the way");
        table.set(SECOND, libc::F_UNLCK, 0, Range::LAST).unwrap();
        table.set(FIRST, libc::F_WRLCK, 0, Range::LAST).unwrap();
        // To take away what is not there takes no descriptor.
        table.set(99, libc::F_UNLCK, 0, 5).unwrap();
        assert_eq!(table.files.locks.count(), 2);
    }

    #[test]
    fn the_host_and_the_client_exclude_each_other() {
        let table = Table::new(Access::ReadWrite);
        let host = host(&table.directory.path().join("file"));
        let whole = Range { kind: Kind::Exclusive, start: 0, end: Range::LAST };
        table.set(FIRST, libc::F_RDLCK, 3, 3).unwrap();
        assert_eq!(sys::set_lock(host.as_fd(), &whole, Patience::None), Err(Errno::AGAIN));
        table.files.locks.drop_owner(table.node, FIRST);
        sys::set_lock(host.as_fd(), &whole, Patience::None).unwrap();
        assert_eq!(table.set(FIRST, libc::F_RDLCK, 3, 3), Err(Errno::AGAIN));
    }

    #[test]
    fn locks_go_with_their_owner_their_handle_or_their_client() {
        let table = Table::new(Access::ReadWrite);
        let ends: [&dyn Fn(); 3] = [
            &|| table.files.locks.drop_owner(table.node, FIRST),
            &|| table.files.locks.drop_handle(table.node, FIRST * 10),
            &|| table.files.locks.clear(),
        ];
        for end in ends {
            table.set(FIRST, libc::F_WRLCK, 0, 9).unwrap();
            table.set(FIRST, libc::F_WRLCK, 20, 29).unwrap();
            table.files.locks.drop_handle(table.node, SECOND * 10);
            assert_eq!(table.set(SECOND, libc::F_WRLCK, 0, 30), Err(Errno::AGAIN));
            end();
            table.set(SECOND, libc::F_WRLCK, 0, 30).unwrap();
            table.files.locks.drop_owner(table.node, SECOND);
        }
    }

    #[test]
    fn what_may_only_be_read_has_shared_locks_only() {
        let table = Table::new(Access::ReadOnly);
        table.set(FIRST, libc::F_RDLCK, 0, 9).unwrap();
        table.set(SECOND, libc::F_RDLCK, 0, 9).unwrap();
        assert_eq!(table.set(SECOND, libc::F_WRLCK, 20, 29), Err(Errno::BADF));
    }

    #[test]
    fn what_is_no_lock_is_refused_and_there_are_only_so_many() {
        let table = Table::new(Access::ReadWrite);
        assert_eq!(table.set(FIRST, 7, 0, 9), Err(Errno::INVAL));
        assert_eq!(table.set(FIRST, libc::F_RDLCK, 9, 8), Err(Errno::INVAL));
        assert_eq!(table.set(FIRST, libc::F_RDLCK, 0, u64::MAX), Err(Errno::INVAL));
        let file = host(&table.directory.path().join("file"));
        // The same descriptor each time: a test has fewer.
        let shared = Arc::new(file);
        for owner in 0..MOST as u64 {
            let owned = Owned { file: Arc::clone(&shared), fh: 0 };
            table.files.locks.owners().insert((table.node, owner + 100), owned);
        }
        assert_eq!(table.set(FIRST, libc::F_RDLCK, 0, 9), Err(Errno::NOLCK));
        table.set(100, libc::F_RDLCK, 0, 9).unwrap();
        // No directory, link or device is opened for a lock.
        let root = table.files.set_lock(crate::abi::ROOT, &table.of(100, libc::F_RDLCK, 0, 9));
        assert_eq!(root, Err(Errno::NOLCK));
    }
}
