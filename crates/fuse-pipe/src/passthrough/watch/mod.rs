//! Changes that others make on the host, told to the client: so it may keep what it knows for long.
//!
//! ```text
//!  a request:  mark the directory -> note what will be told -> look -> reply
//!  an event:   was it noted? take the note away -> notification
//! ```
//! fanotify tells of the directories that the client has looked into: of their names, and of the content and
//! attributes of what they name. Whatever this process does itself is the client's own doing, and it knows;
//! so every client needs a server process of its own.
//!
//! Only what the client has been told since is told of again, and events that come close together are read
//! together: however much happens on the host, few notifications go out, and nothing has to be queued here but
//! what the kernel queues. Where that is too much, all that the client was told is told of.
//!
//! # Races
//! - *Something changes between our look and the note of it.* The note is made before the look. What could
//!   not be noted yet, since it was not known before the look, is looked at again where the directory has
//!   had events meanwhile: [`Place::generation`].
//! - *The notification overtakes the reply.* Notifications go out on one lane, replies on any. The kernel
//!   takes one about a name only while it has the directory's lock, which a lookup and a listing have until
//!   their reply has been worked in; replies about a file that it knows it drops where a notification
//!   came after the request (`attr_version`). Of a file that it may just get to know it is told by the name
//!   first, and told again by the next change, until it has asked for something by the file's number. A name
//!   that expires stays noted, for a reply under way may renew it. Since Linux 6.19 a lookup of a name that is not cached no longer holds up a notification about
//!   it: there such a reply, within microseconds, may bring what is outdated for [`VALIDITY`].
//!
//! # What is not seen
//! Writes through a mapping before it is unmapped or closed; a change by another hard link in a directory
//! that is not watched, for which reason files with several links are kept as short as without watching;
//! what is done below an overlay, or on another machine, for which reason only local file systems are
//! watched.

mod events;
mod handle;
mod notifications;
mod place;
mod run;
mod sys;
mod systems;

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{FileType, fstat},
    io::Errno,
    process::{Pid, getpid},
};

pub(super) use self::place::Place;
pub(crate) use self::run::Watching;
use self::{handle::FileHandle, systems::Systems};
use super::nodes::Node;
use crate::abi::ROOT;

/// How long the client keeps what it is told of changes of. A bound for what is not seen.
pub(super) const VALIDITY: Duration = Duration::from_mins(1);
/// The most directories that are watched, and the most names that are noted.
const MOST_DIRECTORIES: usize = 1 << 16;
const MOST_NAMES: usize = 1 << 17;
/// Oldest client that is told: it can let a name expire without taking away what is mounted below
/// (`FUSE_EXPIRE_ONLY`, Linux 6.2).
pub(crate) const LEAST_MINOR: u32 = 38;

/// All that is asked about a directory.
const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_MOVED_FROM
    | libc::FAN_MOVED_TO
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ATTRIB
    | libc::FAN_ONDIR
    | libc::FAN_EVENT_ON_CHILD;

/// The same of a file.
const MASK_OF_FILE: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB;

/// Why the client is not told what changes: it keeps things for a second then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unwatched {
    /// Nobody asked for it, or the cache is of a kind that has no use for it.
    #[error("not asked for")]
    NotAsked,
    /// The kernel has no such events: before Linux 5.17, or not for this file system.
    #[error("failed to get events of the directory")]
    Kernel(#[source] io::Error),
    /// Others may change it without this kernel.
    #[error("the directory is on a file system of type {kind:#x}, which does not tell of every change")]
    FileSystem {
        /// `f_type` of statfs(2).
        kind: u64,
    },
}

/// Watches the host's side of a served directory.
#[derive(Debug)]
pub(super) struct Watcher {
    group: OwnedFd,
    /// Readable when the thread that reads events is to end.
    stop: OwnedFd,
    /// This process.
    ours: Pid,
    /// Nodes by what events call them. Marks change only while it is locked.
    known: RwLock<HashMap<FileHandle, u64>>,
    /// Of what a process before noted: nobody has watched since.
    outdated: Mutex<Vec<u64>>,
    systems: Systems,
    directories: AtomicUsize,
    names: AtomicUsize,
    /// Somebody reads the events, and the client understands what it is told.
    running: AtomicBool,
    understood: AtomicBool,
    /// By which `/proc/self/fd` names the files to mark.
    descriptors: OwnedFd,
}

impl Watcher {
    /// For the tree below `root`.
    pub(super) fn new(root: BorrowedFd<'_>, descriptors: BorrowedFd<'_>) -> Result<Arc<Self>, Unwatched> {
        let kernel = |errno: Errno| Unwatched::Kernel(errno.into());
        let system = systems::local(root)?;
        FileHandle::of(system, root).map_err(kernel)?;
        let watcher = Self {
            group: sys::group().map_err(kernel)?,
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(kernel)?,
            ours: getpid(),
            known: RwLock::default(),
            outdated: Mutex::default(),
            systems: Systems::default(),
            directories: AtomicUsize::new(0),
            names: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            understood: AtomicBool::new(false),
            descriptors: descriptors.try_clone_to_owned().map_err(Unwatched::Kernel)?,
        };
        let kind = FileType::from_raw_mode(fstat(root).map_err(kernel)?.st_mode);
        watcher.mark(libc::FAN_MARK_ADD, root, kind).map_err(kernel)?;
        watcher.mark(libc::FAN_MARK_REMOVE, root, kind).map_err(kernel)?;
        Ok(Arc::new(watcher))
    }

    /// The client's version, by which it is known what it understands.
    pub(super) fn client(&self, minor: u32) {
        self.understood.store(minor >= LEAST_MINOR, Relaxed);
    }

    /// Whether what is noted now will be told.
    fn tells(&self) -> bool {
        self.running.load(Relaxed) && self.understood.load(Relaxed)
    }

    fn mark(&self, action: u32, file: BorrowedFd<'_>, kind: FileType) -> Result<(), Errno> {
        let mask = if kind == FileType::Directory { MASK } else { MASK_OF_FILE };
        sys::mark(self.group.as_fd(), action, mask, self.descriptors.as_fd(), &super::number_of(file))
    }

    fn known(&self) -> RwLockWriteGuard<'_, HashMap<FileHandle, u64>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn outdated(&self) -> MutexGuard<'_, Vec<u64>> {
        self.outdated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the client keeps of this node may have changed unseen: it is told before anything else.
    pub(super) fn is_outdated(&self, node: u64) {
        self.outdated().push(node);
    }

    fn number(&self, handle: &FileHandle) -> Option<u64> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).get(handle).copied()
    }

    /// Has events find the node. Whether they do.
    fn register(&self, node: &Node) -> bool {
        let place = node.place();
        place.handle(|| {
            let id = self.systems.id(node.device(), node.fd())?;
            let handle = FileHandle::of(id, node.fd()).ok()?;
            self.known().insert(handle.clone(), place.number());
            Some(handle)
        })
    }

    /// Watches a directory, or a file that is all there is, if that has not been tried before. Whether it is watched.
    fn watch(&self, node: &Node) -> bool {
        let is_watched = node.kind() == FileType::Directory || node.place().number() == ROOT;
        if !is_watched || !self.register(node) {
            return false;
        }
        node.place().marked(|| {
            if self.directories.fetch_add(1, Relaxed) < MOST_DIRECTORIES {
                let _known = self.known();
                match self.mark(libc::FAN_MARK_ADD, node.fd(), node.kind()) {
                    Ok(()) => return true,
                    Err(errno) => tracing::debug!(%errno, "a directory is not watched"),
                }
            }
            self.directories.fetch_sub(1, Relaxed);
            false
        })
    }

    /// A node has gone, which still has its descriptor.
    fn forget(&self, place: &Place, node: &Node) {
        self.names.fetch_sub(place.clear(), Relaxed);
        let Some(handle) = place.known_as() else { return };
        let mut known = self.known();
        // The same file may be another node by now, which has the mark.
        if known.get(handle) == Some(&place.number()) {
            known.remove(handle);
            if place.is_marked()
                && let Err(errno) = self.mark(libc::FAN_MARK_REMOVE, node.fd(), node.kind())
            {
                // With the last name of a directory its mark goes by itself.
                tracing::trace!(%errno, "a mark had gone");
            }
        }
        drop(known);
        if place.is_marked() {
            self.directories.fetch_sub(1, Relaxed);
        }
    }
}
