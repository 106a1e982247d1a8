//! What is known of a client, for another process that goes on in this one's place.
//!
//! Files are found again by their names below the directory that is served, and taken for the same by their
//! inodes' numbers and times of birth. What has no name any more, or is another file by now, is `ESTALE` for the
//! client, whose kernel looks for it by name then: only who has it open is told. Locks are not taken along: this
//! process has them.

use std::{
    collections::HashMap, ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, sync::atomic::Ordering,
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, Statx, StatxFlags, fcntl_getfl, fstat, openat2, readlinkat},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{Passthrough, kept, nodes::Node, number};
use crate::abi::ROOT;

/// What a server knows of its client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The minor version of the client's kernel.
    minor: u32,
    /// See [`Passthrough::agree_on_opening`].
    opens_nothing: bool,
    /// The last numbers that were given to a node and to a handle.
    last: [u64; 2],
    nodes: Vec<SavedNode>,
    handles: Vec<SavedHandle>,
}

/// A file that the client knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedNode {
    number: u64,
    /// Below what is served; empty is that itself.
    path: Vec<u8>,
    identity: Identity,
    known: u64,
    /// How often it was made open and not closed, of a client that opens nothing.
    made: u32,
    /// The client is to be told where it changes.
    told: bool,
    /// The same of names in it.
    names: Vec<Box<[u8]>>,
}

/// A file that the client has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct SavedHandle {
    number: u64,
    node: u64,
    /// Of open(2).
    flags: u32,
}

/// What tells a file from another one that had its name, or has its number: inode and time of birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Identity(u64, Option<(i64, u32)>);

impl Identity {
    fn of(stat: &Statx) -> Self {
        let born = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        Self(stat.stx_ino, born.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec)))
    }
}

/// What of a state could not be had again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    nodes: usize,
    handles: usize,
}

impl Passthrough {
    /// What it knows at the moment; meanwhile the client is to ask for nothing.
    pub(crate) fn state(&self) -> State {
        let root = self.nodes.get(ROOT).and_then(|root| self.path(&root)).unwrap_or_default();
        let mut numbers = HashMap::new();
        let mut nodes = Vec::new();
        for (number, node) in self.nodes.all() {
            numbers.insert(node.key(), number);
            match self.saved_node(number, &node, &root) {
                Ok(saved) => nodes.push(saved),
                // It has lost its name.
                Err(errno) => tracing::debug!(%errno, number, "a file will be lost"),
            }
        }
        let handles = self.handles.all().into_iter().filter_map(|(number, handle)| {
            let stat = fstat(&handle.file).ok()?;
            let flags = fcntl_getfl(&handle.file).ok()?.bits();
            Some(SavedHandle { number, node: *numbers.get(&super::nodes::key_of(&stat))?, flags })
        });
        let last = [self.nodes.last(), self.handles.last()];
        let minor = self.minor.load(Ordering::Relaxed);
        State { minor, opens_nothing: self.opens_nothing(), last, handles: handles.collect(), nodes }
    }

    fn saved_node(&self, number: u64, node: &Node, root: &[u8]) -> Result<SavedNode, Errno> {
        let path = self.path(node)?;
        let below = Path::new(OsStr::from_bytes(&path)).strip_prefix(OsStr::from_bytes(root));
        let path = below.map_err(|_| Errno::XDEV)?.as_os_str().as_bytes().to_vec();
        let identity = Identity::of(&node.statx()?);
        let (told, names) = node.place().noted();
        let (known, made) = (node.known(), kept::kept(node).made);
        Ok(SavedNode { number, path, identity, known, made, told, names })
    }

    fn path(&self, node: &Node) -> Result<Vec<u8>, Errno> {
        Ok(readlinkat(&self.descriptors, number(node), Vec::new())?.into_bytes())
    }

    /// Knows of its client what another one knew.
    pub(crate) fn restore(&self, state: &State) -> Lost {
        let State { minor, opens_nothing, last: [last_node, last_handle], nodes, handles } = state;
        self.client(*minor);
        self.opens_nothing.store(*opens_nothing, Ordering::Relaxed);
        self.nodes.skip_to(*last_node);
        self.handles.skip_to(*last_handle);
        let mut lost = Lost::default();
        for saved in nodes {
            if let Err(errno) = self.restore_node(saved) {
                let name = String::from_utf8_lossy(&saved.path);
                tracing::debug!(%errno, %name, "a file is lost");
                lost.nodes += 1;
            }
        }
        for &SavedHandle { number, node, flags } in handles {
            let flags = super::open_flags(flags).difference(OFlags::TRUNC) | OFlags::NONBLOCK;
            match self.nodes.get(node).and_then(|node| self.open_node(&node, flags)) {
                Ok(file) => self.handles.restore(number, file),
                Err(errno) => {
                    tracing::debug!(%errno, number, "an open file is lost");
                    lost.handles += 1;
                }
            }
        }
        lost
    }

    fn restore_node(&self, saved: &SavedNode) -> Result<(), Errno> {
        if saved.number != ROOT {
            let root = self.nodes.get(ROOT)?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // A link may have come into the way.
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let path = OsStr::from_bytes(&saved.path);
            let fd = openat2(root.fd(), path, flags, Mode::empty(), resolve)?;
            let is_it = |stat: &Statx| Identity::of(stat) == saved.identity;
            self.nodes.restore(saved.number, saved.known, fd, is_it)?;
        }
        let node = self.nodes.get(saved.number)?;
        kept::kept(&node).made = saved.made;
        if saved.told || !saved.names.is_empty() {
            node.place().restore(saved.told, &saved.names);
            if let Ok(watcher) = &self.watcher {
                watcher.is_outdated(saved.number);
            }
        }
        Ok(())
    }
}
