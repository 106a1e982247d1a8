//! The tree of files being written, in memory: names, attributes and where
//! content is, never content.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Ext4Error, Kind, Metadata, Special, Timestamp,
    error::shown,
    extents::Extent,
    path::{self, FsPath},
    xattr::{self, Encoded},
};

/// Names a file has at most.
pub(super) const MAX_LINKS: u32 = 65_000;
/// Directories within directories; walks over the tree may recurse so deep.
const MAX_DEPTH: u32 = 1024;
/// Symbolic links followed on the way to a file, as Linux counts.
const MAX_HOPS: u32 = 40;
/// What names, attributes and extents may take, so that a hostile archive cannot eat the memory.
const MAX_HELD: u64 = 2 << 30;
/// What a file takes besides.
const NODE_COST: u64 = 256;

/// A file, whatever its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NodeId(u32);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) attributes: Attributes,
    pub(super) body: Body,
    /// How many names it has.
    pub(super) links: u32,
}

/// Metadata, checked and ready to be stored.
#[derive(Debug)]
pub(super) struct Attributes {
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: Option<Box<Encoded>>,
}

#[derive(Debug)]
pub(super) enum Body {
    File { size: u64, extents: Box<[Extent]> },
    Directory(Directory),
    Symlink(Box<[u8]>),
    Special(Special),
}

#[derive(Debug)]
pub(super) struct Directory {
    pub(super) parent: NodeId,
    depth: u32,
    pub(super) entries: BTreeMap<Box<[u8]>, Entry>,
    /// The layer whose coming last hid what was in here before it.
    pruned: u32,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) node: NodeId,
    /// The layer that brought it.
    layer: u32,
}

/// Where a path leads; the last component is not followed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    Root,
    Entry { directory: NodeId, name: &'a [u8] },
}

/// What to do about missing parents of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Leave,
}

/// The files, and the extents nobody needs any more.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Vec<Option<Node>>,
    /// Where paths start, and above which no symbolic link leads.
    root: NodeId,
    vacant: Vec<NodeId>,
    layer: u32,
    held: u64,
    freed: Vec<Extent>,
}

impl NodeId {
    pub(super) const ROOT: Self = Self(0);

    pub(super) fn index(self) -> usize {
        self.0 as usize
    }
}

impl Attributes {
    pub(super) fn new(metadata: &Metadata, path: &[u8]) -> Result<Self, Ext4Error> {
        let Metadata { mode, uid, gid, mtime, xattrs } = metadata;
        let xattrs = xattr::encode(xattrs, path)?;
        Ok(Self { mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, xattrs })
    }

    /// Of directories nobody described.
    pub(super) fn implied() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: None }
    }

    fn held(&self) -> u64 {
        let xattrs = self.xattrs.as_deref();
        xattrs.map_or(0, |x| (x.inode.len() + x.block.as_ref().map_or(0, |block| block.len())) as u64)
    }
}

impl Body {
    pub(super) fn directory(parent: NodeId, depth: u32) -> Self {
        Self::Directory(Directory { parent, depth, entries: BTreeMap::new(), pruned: 0 })
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::File { .. } => Kind::File,
            Self::Directory(_) => Kind::Directory,
            Self::Symlink(_) => Kind::Symlink,
            Self::Special(special) => Kind::Special(*special),
        }
    }

    fn held(&self) -> u64 {
        match self {
            Self::File { extents, .. } => size_of_val::<[Extent]>(extents) as u64,
            Self::Symlink(target) => target.len() as u64,
            Self::Directory(_) | Self::Special(_) => 0,
        }
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        let body = Body::directory(NodeId::ROOT, 0);
        let root = Node { attributes: Attributes::implied(), body, links: 1 };
        let root = Some(root);
        Self {
            nodes: vec![root],
            root: NodeId::ROOT,
            vacant: Vec::new(),
            layer: 1,
            held: 0,
            freed: Vec::new(),
        }
    }

    pub(super) fn begin_layer(&mut self) {
        self.layer += 1;
    }

    /// Paths start at this directory from now on.
    pub(super) fn set_root(&mut self, directory: NodeId) {
        self.root = directory;
    }

    /// Where paths start.
    pub(super) fn root(&self) -> NodeId {
        self.root
    }

    /// How many slots nodes may have, for tables beside this one.
    pub(super) fn slots(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn node(&self, id: NodeId) -> &Node {
        self.nodes[id.index()].as_ref().expect("only nodes of the tree are named")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id.index()].as_mut().expect("only nodes of the tree are named")
    }

    pub(super) fn directory(&self, id: NodeId) -> Option<&Directory> {
        match &self.node(id).body {
            Body::Directory(directory) => Some(directory),
            _ => None,
        }
    }

    fn directory_mut(&mut self, id: NodeId) -> &mut Directory {
        match &mut self.node_mut(id).body {
            Body::Directory(directory) => directory,
            _ => unreachable!("callers have looked at the kind"),
        }
    }

    /// Extents of files that are gone since this was last called.
    pub(super) fn take_freed(&mut self) -> Vec<Extent> {
        std::mem::take(&mut self.freed)
    }

    /// The node at a place, where there is one.
    pub(super) fn at(&self, place: Place) -> Option<NodeId> {
        match place {
            Place::Root => Some(self.root),
            Place::Entry { directory, name } => {
                self.directory(directory)?.entries.get(name).map(|entry| entry.node)
            }
        }
    }

    /// Finds where a path leads. Symbolic links before the last component are followed, within
    /// the tree. `None` where a parent is missing and shall be left so.
    pub(super) fn locate<'a>(
        &mut self,
        path: FsPath<'a>,
        missing: Missing,
    ) -> Result<Option<Place<'a>>, Ext4Error> {
        let Some((parents, name)) = path.split() else { return Ok(Some(Place::Root)) };
        let Some(directory) = self.walk(parents, path, missing)? else { return Ok(None) };
        Ok(Some(Place::Entry { directory, name }))
    }

    fn walk(&mut self, parents: FsPath, path: FsPath, missing: Missing) -> Result<Option<NodeId>, Ext4Error> {
        let mut at = self.root;
        let mut hops = 0;
        // Without symbolic links nothing needs to be copied.
        let mut rest = parents.components();
        let mut detour: VecDeque<Box<[u8]>> = VecDeque::new();
        loop {
            let owned = detour.pop_front();
            let Some(component) = owned.as_deref().or_else(|| rest.next()) else { return Ok(Some(at)) };
            match component {
                b"" | b"." => continue,
                b".." if at == self.root => continue,
                b".." => {
                    at = self.directory(at).map_or(self.root, |directory| directory.parent);
                    continue;
                }
                _ => {}
            }
            let not_a_directory =
                || Ext4Error::NotADirectory { path: path.shown(), component: shown(component) };
            let place = Place::Entry { directory: at, name: component };
            let Some(next) = self.at(place) else {
                if missing == Missing::Leave {
                    return Ok(None);
                }
                if !path::is_name(component) {
                    return Err(not_a_directory());
                }
                at = self.make_directory(place, Attributes::implied(), path)?;
                continue;
            };
            match &self.node(next).body {
                Body::Directory(_) => at = next,
                Body::Symlink(target) => {
                    hops += 1;
                    if hops > MAX_HOPS {
                        return Err(Ext4Error::SymlinkLoop { path: path.shown() });
                    }
                    if target.starts_with(b"/") {
                        at = self.root;
                    }
                    for component in target.split(|byte| *byte == b'/').rev() {
                        detour.push_front(component.into());
                    }
                }
                _ if missing == Missing::Leave => return Ok(None),
                _ => return Err(not_a_directory()),
            }
        }
    }

    /// Puts a directory where nothing is.
    pub(super) fn make_directory(
        &mut self,
        place: Place,
        attributes: Attributes,
        path: FsPath,
    ) -> Result<NodeId, Ext4Error> {
        let (parent, depth) = match place {
            Place::Root => (self.root, 0),
            Place::Entry { directory, .. } => {
                (directory, self.directory(directory).map_or(0, |parent| parent.depth) + 1)
            }
        };
        if depth > MAX_DEPTH {
            return Err(Ext4Error::TooDeep { path: path.shown(), limit: MAX_DEPTH });
        }
        self.insert(place, attributes, Body::directory(parent, depth))
    }

    /// Puts a node where nothing is.
    pub(super) fn insert(
        &mut self,
        place: Place,
        attributes: Attributes,
        body: Body,
    ) -> Result<NodeId, Ext4Error> {
        self.hold(NODE_COST + attributes.held() + body.held())?;
        let node = Some(Node { attributes, body, links: 0 });
        let id = if let Some(id) = self.vacant.pop() {
            self.nodes[id.index()] = node;
            id
        } else {
            let id = NodeId(u32::try_from(self.nodes.len()).expect("MAX_HELD allows for fewer"));
            self.nodes.push(node);
            id
        };
        self.link(place, id)?;
        Ok(id)
    }

    /// Gives a node one more name.
    pub(super) fn link(&mut self, place: Place, node: NodeId) -> Result<(), Ext4Error> {
        if let Place::Entry { directory, name } = place {
            self.hold(name.len() as u64)?;
            let entry = Entry { node, layer: self.layer };
            self.directory_mut(directory).entries.insert(name.into(), entry);
            self.node_mut(node).links += 1;
        }
        Ok(())
    }

    /// Keeps a node although it may lose its last name, until it is [unpinned](Self::unpin).
    pub(super) fn pin(&mut self, node: NodeId) {
        self.node_mut(node).links += 1;
    }

    /// The node now has the names it has.
    pub(super) fn unpin(&mut self, node: NodeId) {
        self.node_mut(node).links -= 1;
    }

    fn hold(&mut self, bytes: u64) -> Result<(), Ext4Error> {
        self.held += bytes;
        if self.held > MAX_HELD {
            return Err(Ext4Error::TooManyFiles { limit: MAX_HELD });
        }
        Ok(())
    }

    /// Describes a directory that is there already anew; it now is of the current layer.
    pub(super) fn update(&mut self, place: Place, attributes: Attributes) -> Result<(), Ext4Error> {
        self.hold(attributes.held())?;
        let Some(node) = self.at(place) else { return Ok(()) };
        self.node_mut(node).attributes = attributes;
        if let Place::Entry { directory, name } = place {
            let layer = self.layer;
            if let Some(entry) = self.directory_mut(directory).entries.get_mut(name) {
                entry.layer = layer;
            }
        }
        Ok(())
    }

    /// Removes what is at a place and all beneath it; of the root only what is beneath.
    pub(super) fn remove(&mut self, place: Place) {
        let mut orphans = match place {
            Place::Root => self.empty(self.root),
            Place::Entry { directory, name } => {
                let entry = self.directory_mut(directory).entries.remove(name);
                entry.into_iter().map(|entry| entry.node).collect()
            }
        };
        while let Some(id) = orphans.pop() {
            let node = self.node_mut(id);
            node.links -= 1;
            if node.links > 0 {
                continue;
            }
            if matches!(node.body, Body::Directory(_)) {
                orphans.extend(self.empty(id));
            }
            if let Some(Node { body: Body::File { extents, .. }, .. }) = self.nodes[id.index()].take() {
                self.freed.extend_from_slice(&extents);
            }
            self.vacant.push(id);
        }
    }

    fn empty(&mut self, directory: NodeId) -> Vec<NodeId> {
        std::mem::take(&mut self.directory_mut(directory).entries).into_values().map(|e| e.node).collect()
    }

    /// Removes all that is in a directory.
    pub(super) fn remove_children(&mut self, directory: NodeId) {
        let names: Vec<_> = self.directory_mut(directory).entries.keys().cloned().collect();
        for name in &names {
            self.remove(Place::Entry { directory, name });
        }
    }

    /// Removes what earlier layers put at a place; what this layer put there or beneath stays.
    pub(super) fn hide(&mut self, place: Place) {
        let Place::Entry { directory, name } = place else {
            self.hide_children(self.root);
            return;
        };
        let Some(Entry { node, layer }) = self.directory_mut(directory).entries.get(name).copied() else {
            return;
        };
        if self.directory(node).is_some() {
            self.hide_children(node);
        }
        if layer == self.layer {
            return;
        }
        if self.directory(node).is_some_and(|directory| !directory.entries.is_empty()) {
            // Hidden, but this layer has files in it: the directory is one it implies.
            self.node_mut(node).attributes = Attributes::implied();
            let layer = self.layer;
            if let Some(entry) = self.directory_mut(directory).entries.get_mut(name) {
                entry.layer = layer;
            }
        } else {
            self.remove(place);
        }
    }

    /// Removes what earlier layers put into a directory.
    pub(super) fn hide_children(&mut self, id: NodeId) {
        let layer = self.layer;
        let directory = self.directory_mut(id);
        // A second time there is nothing left to hide, and hostile archives ask often.
        if directory.pruned == layer {
            return;
        }
        directory.pruned = layer;
        let names: Vec<_> = directory.entries.keys().cloned().collect();
        for name in &names {
            self.hide(Place::Entry { directory: id, name });
        }
    }
}
