//! What is noted of a node.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use super::{FileHandle, MOST_NAMES, Watcher};
use crate::{abi::ROOT, passthrough::nodes::Node};

/// What is noted of a node: nothing, where nobody watches.
#[derive(Debug)]
pub(in crate::passthrough) struct Place(Option<Box<Noted>>);

#[derive(Debug)]
struct Noted {
    watcher: Arc<Watcher>,
    number: u64,
    handle: OnceLock<Option<FileHandle>>,
    /// Of a directory: whether it is watched.
    marked: OnceLock<bool>,
    names: Mutex<Names>,
    /// The client may keep attributes or content.
    told: AtomicBool,
    /// The client has asked for something by the node's number, so that its kernel has the file: before, it
    /// may wait for the reply that tells of it, and make nothing of a notification.
    used: AtomicBool,
    /// Changes of its attributes are seen, through a directory that names it.
    covered: AtomicBool,
}

/// Of a directory.
#[derive(Debug, Default)]
struct Names {
    /// Those that the client may keep, or keep that there are none.
    told: HashSet<Box<[u8]>>,
    /// Moves on with each event.
    generation: u64,
}

impl Place {
    pub(in crate::passthrough) fn new(watcher: Option<&Arc<Watcher>>, number: u64) -> Self {
        Self(watcher.map(|watcher| {
            Box::new(Noted {
                watcher: Arc::clone(watcher),
                number,
                handle: OnceLock::new(),
                marked: OnceLock::new(),
                names: Mutex::default(),
                told: AtomicBool::new(false),
                used: AtomicBool::new(false),
                covered: AtomicBool::new(false),
            })
        }))
    }

    /// Before the client, which asks for this node, is told of its attributes or content. Whether changes of them will be told.
    pub(in crate::passthrough) fn note(&self, node: &Node) -> bool {
        let Some(noted) = &self.0 else { return false };
        if !noted.watcher.tells() {
            return false;
        }
        // Anybody who changes the file from now on finds it set.
        noted.used.store(true, SeqCst);
        noted.told.store(true, SeqCst);
        // A file that is all there is has no directory that tells of it.
        if noted.number == ROOT && noted.marked.get().is_none() {
            noted.watcher.watch(node);
        }
        noted.covered.load(SeqCst) || self.is_marked()
    }

    /// Changes of the node are seen, or not, in the directory where a lookup has found it.
    pub(in crate::passthrough) fn cover(&self, covered: bool) {
        if let Some(noted) = &self.0 {
            noted.covered.store(covered, SeqCst);
        }
    }

    /// Whether the client is to be told; once, where it is sure to understand.
    pub(super) fn take(&self) -> bool {
        self.0.as_ref().is_some_and(|noted| {
            if noted.used.load(SeqCst) { noted.told.swap(false, SeqCst) } else { noted.told.load(SeqCst) }
        })
    }

    /// Before the client is told of a name in this directory: the generation, where changes of the name will
    /// be told.
    pub(in crate::passthrough) fn note_name(&self, node: &Node, name: &[u8]) -> Option<u64> {
        let noted = self.0.as_ref()?;
        let watcher = &noted.watcher;
        if !watcher.tells() || !watcher.watch(node) {
            return None;
        }
        noted.used.store(true, SeqCst);
        let mut names = noted.names();
        if !names.told.contains(name) {
            if watcher.names.fetch_add(1, Relaxed) >= MOST_NAMES {
                watcher.names.fetch_sub(1, Relaxed);
                return None;
            }
            names.told.insert(name.into());
        }
        Some(names.generation)
    }

    /// Has events find the node from now on, and notes it.
    pub(in crate::passthrough) fn register(&self, node: &Node) {
        if let Some(noted) = &self.0
            && noted.watcher.tells()
            && noted.watcher.register(node)
        {
            noted.told.store(true, SeqCst);
        }
    }

    /// See [`note_name`](Self::note_name).
    pub(in crate::passthrough) fn generation(&self) -> Option<u64> {
        self.0.as_ref().map(|noted| noted.names().generation)
    }

    /// The directory has had an event.
    pub(super) fn next_generation(&self) {
        if let Some(noted) = &self.0 {
            noted.names().generation += 1;
        }
    }

    /// The client has taken a name away itself, or is told of it: whether it was noted.
    pub(in crate::passthrough) fn take_name(&self, name: &[u8]) -> bool {
        let Some(noted) = &self.0 else { return false };
        let taken = noted.names().told.remove(name);
        if taken {
            noted.watcher.names.fetch_sub(1, Relaxed);
        }
        taken
    }

    /// Whether a name is noted. One that only expires stays so: a reply under way may renew it.
    pub(super) fn has_name(&self, name: &[u8]) -> bool {
        self.0.as_ref().is_some_and(|noted| noted.names().told.contains(name))
    }

    /// All names that are noted, which stay so; whoever looks at the same time looks again.
    pub(super) fn names(&self) -> Vec<Box<[u8]>> {
        let Some(noted) = &self.0 else { return Vec::new() };
        let mut names = noted.names();
        names.generation += 1;
        names.told.iter().cloned().collect()
    }

    /// What was noted: of the file, and names in it.
    pub(in crate::passthrough) fn noted(&self) -> (bool, Vec<Box<[u8]>>) {
        match &self.0 {
            Some(noted) => (noted.told.load(SeqCst), noted.names().told.iter().cloned().collect()),
            None => (false, Vec::new()),
        }
    }

    /// Notes what another process had noted.
    pub(in crate::passthrough) fn restore(&self, told: bool, names: &[Box<[u8]>]) {
        let Some(noted) = &self.0 else { return };
        // Its kernel has the file.
        noted.used.store(true, SeqCst);
        noted.told.store(told, SeqCst);
        let mut has = noted.names();
        for name in names {
            if noted.watcher.names.fetch_add(1, Relaxed) >= MOST_NAMES || !has.told.insert(name.clone()) {
                noted.watcher.names.fetch_sub(1, Relaxed);
            }
        }
    }

    /// Forgets what was noted; how many names.
    pub(super) fn clear(&self) -> usize {
        let Some(noted) = &self.0 else { return 0 };
        noted.told.store(false, SeqCst);
        noted.used.store(false, SeqCst);
        noted.covered.store(false, SeqCst);
        std::mem::take(&mut noted.names().told).len()
    }

    /// As if the client had never been told: of a node that stays when all is forgotten.
    pub(in crate::passthrough) fn reset(&self) {
        if let Some(noted) = &self.0 {
            noted.watcher.names.fetch_sub(self.clear(), Relaxed);
        }
    }

    /// The node goes.
    pub(in crate::passthrough) fn close(&self, node: &Node) {
        if let Some(noted) = &self.0 {
            noted.watcher.forget(self, node);
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.0.as_ref().map_or(0, |noted| noted.number)
    }

    pub(super) fn handle(&self, find: impl FnOnce() -> Option<FileHandle>) -> bool {
        self.0.as_ref().is_some_and(|noted| noted.handle.get_or_init(find).is_some())
    }

    pub(super) fn known_as(&self) -> Option<&FileHandle> {
        self.0.as_ref()?.handle.get()?.as_ref()
    }

    pub(super) fn marked(&self, mark: impl FnOnce() -> bool) -> bool {
        self.0.as_ref().is_some_and(|noted| *noted.marked.get_or_init(mark))
    }

    pub(super) fn is_marked(&self) -> bool {
        self.0.as_ref().is_some_and(|noted| noted.marked.get() == Some(&true))
    }
}

impl Noted {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
