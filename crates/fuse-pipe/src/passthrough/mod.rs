//! A directory of the host as a file system.
//!
//! Every node that the client knows is a descriptor (`O_PATH`) of the very file, found by its parent's and a
//! name without a `/` in it: no path is ever resolved, so that nothing leads out of the directory, and a
//! symbolic link is for the client to follow. What has to be opened for its content is opened by that
//! descriptor, and only regular files and directories are.
//!
//! ```text
//!  lookup -> node (counted) -> forget: the last one closes its descriptor
//!  open, create, opendir -> handle -> release
//! ```
//! As root, new files belong to the caller, whose rights the client's kernel has checked
//! (`default_permissions`); as an ordinary user all is that user's.

mod attributes;
mod caller;
mod data;
mod directories;
mod handles;
mod names;
mod nodes;
mod xattrs;

use std::{ffi::CString, fs::File, os::fd::OwnedFd, path::Path, time::Duration};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, openat},
    io::Errno,
};

pub(crate) use self::{directories::Told, xattrs::LONGEST as LONGEST_XATTR};
use self::{
    handles::Handles,
    nodes::{Node, Nodes},
};

/// How long the client may keep what it has been told, and how it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cache {
    /// For a second: changes of the host are seen by then.
    #[default]
    Auto,
    /// For ever: nobody changes the tree.
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

/// A directory to serve.
#[derive(Debug)]
pub struct Passthrough {
    nodes: Nodes,
    handles: Handles,
    /// Descriptors of this process, by which files are opened: `/proc/self/fd`.
    descriptors: OwnedFd,
    cache: Cache,
    access: Access,
}

impl Passthrough {
    /// Serves the directory at `path`.
    ///
    /// # Errors
    /// Where it is none, or cannot be opened.
    pub fn new(path: &Path, cache: Cache, access: Access) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, path, flags, Mode::empty())?;
        let descriptors = openat(CWD, "/proc/self/fd", flags, Mode::empty())?;
        Ok(Self { nodes: Nodes::new(root)?, handles: Handles::default(), descriptors, cache, access })
    }

    /// How long a name or an attribute is kept.
    pub(crate) fn validity(&self) -> Duration {
        match self.cache {
            Cache::Auto => Duration::from_secs(1),
            Cache::Always | Cache::Exclusive => Duration::from_hours(24),
            Cache::Never => Duration::ZERO,
        }
    }

    /// The policy.
    pub(crate) fn cache(&self) -> Cache {
        self.cache
    }

    /// `EROFS` where nothing may be changed.
    pub(crate) fn may_change(&self) -> Result<(), Errno> {
        if self.access == Access::ReadOnly { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Forgets everything, as of a client that is gone.
    pub(crate) fn reset(&self) {
        self.handles.clear();
        self.nodes.clear();
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

/// A descriptor's name in `/proc/self/fd`.
fn number(node: &Node) -> CString {
    use std::os::fd::AsRawFd as _;
    CString::new(node.fd().as_raw_fd().to_string()).unwrap_or_default()
}

/// Flags of open(2) as the client sends them.
fn open_flags(flags: u32) -> OFlags {
    // What the client's kernel does itself; with O_DIRECT its buffers need not be aligned as a disk wants it.
    OFlags::from_bits_retain(flags)
        & (OFlags::ACCMODE | OFlags::APPEND | OFlags::TRUNC | OFlags::DSYNC | OFlags::SYNC | OFlags::NOATIME)
}
