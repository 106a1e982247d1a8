//! Files of a client that opens none.
//!
//! Where nobody else changes the tree, the client's kernel is told that there is nothing to open: it then reads
//! what it has cached without a word to us, and asks for the rest by node. The node's file is opened for the
//! first such request, for reading; for writing, once that is asked for. It stays with its node until that
//! is forgotten, or many others were opened since.
//!
//! A file that is made comes open, and stays so until it is closed: it may be one that cannot be opened again.
//! Old kernels do not tell that it is; then it stays with its node.

use std::{
    collections::VecDeque,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
};

use rustix::{fs::OFlags, io::Errno};

use super::{
    Passthrough,
    handles::Handle,
    nodes::{Node, Nodes},
};

/// How many files stay open for their nodes.
const MOST: usize = 1024;

/// What a file is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    Write,
    /// A directory from its beginning: as it is now.
    List,
}

/// A node's file.
#[derive(Debug, Default)]
pub(super) struct Kept {
    file: Option<Arc<Handle>>,
    writable: bool,
    /// Since the last time that it was thought of closing it.
    used: bool,
    /// How often it was made open, and has not been closed.
    pub(super) made: u32,
}

pub(super) fn kept(node: &Node) -> MutexGuard<'_, Kept> {
    // Each change leaves it whole.
    node.kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nodes with open files, the oldest first; some may be forgotten.
#[derive(Debug, Default)]
pub(super) struct Keeper {
    order: Mutex<VecDeque<u64>>,
}

impl Keeper {
    /// Notes a node that has got a file, and lets another go where there are too many.
    fn note(&self, number: u64, nodes: &Nodes) {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.push_back(number);
        while order.len() > MOST {
            let Some(oldest) = order.pop_front() else { return };
            let Ok(node) = nodes.get(oldest) else { continue };
            let mut kept = kept(&node);
            if kept.made > 0 || std::mem::take(&mut kept.used) {
                order.push_back(oldest);
                // It may be so with all: then there are as many more as are asked for at once.
                return;
            }
            kept.file = None;
        }
    }
}

impl Passthrough {
    /// Whether the client opens nothing.
    pub(super) fn opens_nothing(&self) -> bool {
        self.opens_nothing.load(Ordering::Relaxed)
    }

    /// The client's kernel can do without opening; whether it shall.
    pub(crate) fn agree_on_opening(&self, can_do_without: bool) -> bool {
        let nothing = can_do_without && self.cache() == super::Cache::Always;
        self.opens_nothing.store(nothing, Ordering::Relaxed);
        nothing
    }

    /// The file by its handle, or by its node.
    pub(super) fn file(&self, number: u64, fh: u64, wanted: Use) -> Result<Arc<Handle>, Errno> {
        if !self.opens_nothing() {
            return self.handles.get(fh);
        }
        let node = self.nodes.get(number)?;
        let mut kept = kept(&node);
        if let Some(file) = &kept.file
            && match wanted {
                Use::Read => true,
                Use::Write => kept.writable,
                Use::List => false,
            }
        {
            let file = Arc::clone(file);
            kept.used = true;
            return Ok(file);
        }
        let writable = wanted == Use::Write;
        let flags = if writable { OFlags::RDWR } else { OFlags::RDONLY };
        let file = match self.open_node(&node, flags | OFlags::NONBLOCK) {
            // What may not be read may still be written to: it is of no use for the next request, though.
            Err(Errno::ACCESS) if writable => {
                return Ok(Arc::new(Handle::new(self.open_node(&node, OFlags::WRONLY)?)));
            }
            file => Arc::new(Handle::new(file?)),
        };
        kept.writable = writable;
        let before = kept.file.replace(Arc::clone(&file));
        drop(kept);
        if before.is_none() {
            self.keeper.note(number, &self.nodes);
        }
        Ok(file)
    }

    /// Keeps a file that was made.
    pub(super) fn keep_made(&self, number: u64, file: File, flags: OFlags) -> Result<(), Errno> {
        let node = self.nodes.get(number)?;
        let mut kept = kept(&node);
        kept.made = kept.made.saturating_add(1);
        let writable = flags & OFlags::ACCMODE == OFlags::RDWR;
        let mut noted = true;
        if (writable && !kept.writable) || kept.file.is_none() {
            kept.writable = writable;
            noted = kept.file.replace(Arc::new(Handle::new(file))).is_some();
        }
        drop(kept);
        if !noted {
            self.keeper.note(number, &self.nodes);
        }
        Ok(())
    }

    /// A file that was made is closed.
    pub(super) fn close_made(&self, number: u64) {
        if let Ok(node) = self.nodes.get(number) {
            let mut kept = kept(&node);
            kept.made = kept.made.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::{Cache, Options};

    #[test]
    fn only_so_many_files_stay_open() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { cache: Cache::Always, ..Options::default() };
        let files = Passthrough::new(directory.path(), options).unwrap();
        assert!(!files.agree_on_opening(false) && files.agree_on_opening(true));
        let number = |index: u64| index + 2;
        for index in 0..MOST as u64 + 300 {
            let name = std::ffi::CString::new(format!("file {index}")).unwrap();
            std::fs::write(directory.path().join(name.to_str().unwrap()), "x").unwrap();
            assert_eq!(files.lookup(crate::abi::ROOT, &name).unwrap().nodeid, number(index));
            files.file(number(index), 0, Use::Read).unwrap();
            // The first is always in use.
            files.file(number(0), 0, Use::Write).unwrap();
        }
        let is_open = |index| kept(&files.nodes.get(number(index)).unwrap()).file.is_some();
        assert!(is_open(0) && !is_open(1) && !is_open(299) && is_open(MOST as u64));
        files.file(number(1), 0, Use::Read).unwrap();
        assert!(is_open(1));
        let open = (0..MOST as u64 + 300).filter(|&index| is_open(index)).count();
        assert!(open <= MOST + 1, "{open}");
    }
}
