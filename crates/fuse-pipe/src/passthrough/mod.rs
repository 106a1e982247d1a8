//! A directory of the host, or a single file, as a file system.
//!
//! Every node that the client knows is a descriptor (`O_PATH`) of the very file, found by its parent's and a
//! name without a `/` in it: no path is ever resolved, so that nothing leads out of the directory, and a
//! symbolic link is for the client to follow. What has to be opened for its content is opened by that
//! descriptor, and only regular files and directories are.
//!
//! ```text
//!  lookup -> node (counted) -> forget: the last one closes its descriptor
//!  open, create, opendir -> handle -> release; of a client that opens nothing the node has the file
//! ```
//! As root, new files belong to the caller, whose rights the client's kernel has checked
//! (`default_permissions`); as an ordinary user all is that user's: [`Ids`].

mod acls;
mod attributes;
mod caller;
mod data;
mod directories;
mod flags;
mod handles;
mod ids;
mod kept;
mod listing;
mod locks;
mod names;
mod nodes;
mod saved;
mod sys;
mod versions;
mod waits;
mod watch;
mod xattrs;

use std::{
    ffi::CString,
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, fstat, openat},
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Resource, getrlimit},
};

pub(crate) use self::{
    directories::Told,
    handles::Handle,
    locks::Locked,
    waits::{Origin, Wait},
    watch::Watching,
    xattrs::LONGEST as LONGEST_XATTR,
};
use self::{
    handles::Handles,
    ids::Identity,
    kept::Keeper,
    locks::Locks,
    nodes::{Node, Nodes},
    watch::Watcher,
};
pub use self::{
    ids::{GuestGid, GuestUid, HostGid, HostUid, Ids},
    saved::State,
    watch::Unwatched,
};

/// How many descriptors there is room for from the beginning: each takes the kernel 8 bytes.
const DESCRIPTORS: u64 = 16 << 10;

/// How long the client may keep what it has been told, and how it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cache {
    /// For a second: changes of the host are seen by then.
    #[default]
    Auto,
    /// For ever: nobody but the client changes the tree. It opens nothing, so that nobody hears when it closes
    /// something: locks are its own affair.
    Always,
    /// Not at all.
    Never,
    /// For ever, written back when it suits: only the client writes.
    Exclusive,
}

/// Who may change the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// The client.
    #[default]
    ReadWrite,
    /// Nobody, whatever the client's mount says.
    ReadOnly,
}

/// Whether the client is told what others change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Watch {
    /// It is not, and sees it when it looks again.
    #[default]
    Off,
    /// It is, where that is possible, with [`Cache::Auto`], and keeps things for longer. What this process
    /// itself changes is taken for the client's own doing: no two clients may share a process.
    On,
}

/// Whether something is told when it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    Yes,
    No,
}

/// How a directory is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// What the client may keep.
    pub cache: Cache,
    /// Whether it may change anything.
    pub access: Access,
    /// Whether it is told what changes.
    pub watch: Watch,
    /// Whose files are whose.
    pub ids: Ids,
}

/// A directory, or a file, to serve.
#[derive(Debug)]
pub struct Passthrough {
    nodes: Nodes,
    handles: Handles,
    /// Directories of which something has been read and not been asked for.
    unread: listing::Count,
    locks: Locks,
    keeper: Keeper,
    opens_nothing: AtomicBool,
    /// The minor version of the client's kernel.
    minor: AtomicU32,
    /// Descriptors of this process, by which files are opened: `/proc/self/fd`.
    descriptors: OwnedFd,
    options: Options,
    identity: Identity,
    watcher: Result<Arc<Watcher>, Unwatched>,
}

impl Passthrough {
    /// Serves the directory at `path`, or the regular file: then there is nothing but that, and it is to be
    /// mounted over a file.
    ///
    /// # Errors
    /// Where it is neither, or cannot be opened.
    pub fn new(path: &Path, options: Options) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())?;
        if !matches!(
            FileType::from_raw_mode(fstat(&root)?.st_mode),
            FileType::Directory | FileType::RegularFile
        ) {
            let what = "neither a directory nor a regular file";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, what));
        }
        let descriptors = openat(CWD, "/proc/self/fd", flags | OFlags::DIRECTORY, Mode::empty())?;
        reserve(&descriptors)?;
        let watcher = match (options.watch, options.cache) {
            (Watch::On, Cache::Auto) => Watcher::new(root.as_fd(), descriptors.as_fd()),
            _ => Err(Unwatched::NotAsked),
        };
        if let Err(reason @ (Unwatched::Kernel(_) | Unwatched::FileSystem { .. })) = &watcher {
            tracing::info!(reason = reason as &dyn std::error::Error, path = %path.display(), "not watched");
        }
        Ok(Self {
            nodes: Nodes::new(root, watcher.as_ref().ok().cloned())?,
            handles: Handles::default(),
            unread: listing::Count::default(),
            locks: Locks::new(descriptors.try_clone()?),
            keeper: Keeper::default(),
            opens_nothing: AtomicBool::new(false),
            minor: AtomicU32::new(0),
            descriptors,
            options,
            identity: Identity::new(options.ids),
            watcher,
        })
    }

    /// The same in the place of another process, whose client goes on: see
    /// [`Server::save`](crate::server::Server::save). Files that are not what they were are lost to it.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn resume(path: &Path, options: Options, state: &State) -> std::io::Result<Self> {
        let files = Self::new(path, options)?;
        let lost = files.restore(state);
        tracing::debug!(path = %path.display(), ?lost, "goes on in another one's place");
        Ok(files)
    }

    /// Whether changes of the host are told to the client.
    ///
    /// # Errors
    /// Why they are not.
    pub fn watched(&self) -> Result<(), &Unwatched> {
        self.watcher.as_ref().map(drop)
    }

    /// The version of the client's kernel, which begins.
    pub(crate) fn client(&self, minor: u32) {
        self.minor.store(minor, Ordering::Relaxed);
        if let Ok(watcher) = &self.watcher {
            watcher.client(minor);
        }
    }

    /// The client is about to have content of the node, or attributes that it did not ask for alone.
    pub(crate) fn content_goes(&self, node: u64) {
        if self.watcher.is_ok()
            && let Ok(node) = self.nodes.get(node)
        {
            node.place().note(&node);
        }
    }

    /// How long a name or an attribute is kept.
    pub(crate) fn validity(&self) -> Duration {
        match self.options.cache {
            Cache::Auto => Duration::from_secs(1),
            Cache::Always | Cache::Exclusive => Duration::from_hours(24),
            Cache::Never => Duration::ZERO,
        }
    }

    /// The policy.
    pub(crate) fn cache(&self) -> Cache {
        self.options.cache
    }

    /// `EROFS` where nothing may be changed.
    pub(crate) fn may_change(&self) -> Result<(), Errno> {
        if self.options.access == Access::ReadOnly { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Forgets everything, as of a client that is gone.
    pub(crate) fn reset(&self) {
        self.locks.clear();
        self.handles.clear();
        self.nodes.clear();
    }

    /// How many nodes, handles, descriptors for locks and waits for locks there are.
    pub(crate) fn counts(&self) -> [usize; 4] {
        [self.nodes.count(), self.handles.count(), self.locks.count(), self.locks.waits.count()]
    }

    /// Opens a node's file for its content.
    fn open_node(&self, node: &Node, flags: OFlags) -> Result<File, Errno> {
        match node.kind() {
            FileType::RegularFile | FileType::Directory => {}
            FileType::Symlink => return Err(Errno::LOOP),
            // Devices, pipes and sockets are the client's own affair.
            _ => return Err(Errno::NXIO),
        }
        let flags = flags.difference(OFlags::NOFOLLOW | OFlags::CREATE | OFlags::EXCL) | OFlags::CLOEXEC;
        Ok(openat(&self.descriptors, number(node), flags, Mode::empty())?.into())
    }
}

/// Has the kernel make its table of this process's descriptors large at once. To enlarge it later, while there
/// are other threads, takes the kernel milliseconds each time it doubles, for which a request waits.
fn reserve(any: &OwnedFd) -> Result<(), Errno> {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX).min(DESCRIPTORS);
    // The last is taken where the process has that many: then so is the table.
    match i32::try_from(most).map_or(Err(Errno::INVAL), |most| fcntl_dupfd_cloexec(any, most - 1)) {
        Ok(_) | Err(Errno::MFILE | Errno::INVAL) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A descriptor's name in `/proc/self/fd`.
fn number(node: &Node) -> CString {
    number_of(node.fd())
}

/// See [`number`].
fn number_of(descriptor: BorrowedFd<'_>) -> CString {
    CString::new(descriptor.as_raw_fd().to_string()).unwrap_or_default()
}

/// Flags of open(2) as the client sends them.
fn open_flags(flags: u32) -> OFlags {
    // What the client's kernel does itself; with O_DIRECT its buffers need not be aligned as a disk wants it.
    OFlags::from_bits_retain(flags)
        & (OFlags::ACCMODE | OFlags::APPEND | OFlags::TRUNC | OFlags::DSYNC | OFlags::SYNC | OFlags::NOATIME)
}
