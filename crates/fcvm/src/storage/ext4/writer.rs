//! The operations that make a file system.

use std::{fs::File, io::Read};

use super::{
    BLOCK, BLOCK_BYTES, Ext4Error, Kind, Metadata, Options, Segment, Special, ZEROS,
    blocks::BlockFile,
    error::shown,
    extents::{self, Extent},
    path::FsPath,
    space::{Run, Space},
    superblock::RESERVED_DESCRIPTORS,
    tree::{Attributes, Body, MAX_LINKS, Missing, NodeId, Place, Tree},
};

/// How much of a file is read at a time.
const CHUNK: usize = 64 * BLOCK;
/// Logical blocks are numbered with 32 bits.
const MAX_FILE: u64 = (u32::MAX as u64 - 1) * BLOCK_BYTES;
/// Free runs from this many blocks on are given back to the host at once.
const PUNCH_AT_ONCE: u32 = 1024;
/// The longest target of a symbolic link: it ends with a zero byte within its block.
const MAX_TARGET: usize = BLOCK - 1;

/// Writes an ext4 file system into a file.
///
/// Paths are relative to the root and have no `.`, `..` or empty component; the empty path is the
/// root. Symbolic links on the way to the last component are followed within the tree, as a
/// process that has it as its root would; the last component never is. Missing parents are made,
/// owned by root with mode 0755. What an operation puts at a path replaces what was there, a
/// directory with all its content; only a directory put where one is leaves the content.
///
/// After an error the file system is whole, without the file that failed; a failure to write the
/// image, or running out of room or memory for it, is final.
#[derive(Debug)]
pub struct Ext4Writer {
    pub(super) file: BlockFile,
    pub(super) space: Space,
    pub(super) tree: Tree,
    pub(super) options: Options,
    chunk: Vec<u8>,
}

/// How much is left free in a finished file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizePolicy {
    /// As good as nothing: it will only be read.
    Fit,
    /// Room to be written to.
    Spare {
        /// Free bytes.
        bytes: u64,
        /// Files that can be added.
        inodes: u32,
    },
}

/// How much is in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Files of any type; one with several names counts once.
    pub files: u64,
    /// The sum of the sizes of regular files, holes included.
    pub bytes: u64,
}

/// What a file system came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Its blocks of 4096 bytes.
    pub blocks: u64,
    /// Its files of any type, the root included.
    pub inodes: u64,
    /// Its size.
    pub bytes: u64,
    /// What it takes of the host's disk.
    pub allocated: u64,
}

impl Ext4Writer {
    /// Starts a file system in an empty file.
    ///
    /// # Errors
    /// Where the label is too long.
    pub fn create(file: File, options: Options) -> Result<Self, Ext4Error> {
        if options.label.len() > 16 {
            return Err(Ext4Error::InvalidLabel { label: options.label });
        }
        Ok(Self {
            file: BlockFile::new(file),
            space: Space::new(1 + RESERVED_DESCRIPTORS),
            tree: Tree::new(),
            options,
            chunk: vec![0; CHUNK],
        })
    }

    /// Makes a directory, or gives one that is there new metadata.
    ///
    /// # Errors
    /// As of any path and metadata.
    pub fn mkdir(&mut self, path: &[u8], metadata: &Metadata) -> Result<(), Ext4Error> {
        let (path, attributes) = (FsPath::parse(path)?, Attributes::new(metadata, path)?);
        let place = self.place(path)?;
        if self.tree.at(place).is_some_and(|node| self.tree.directory(node).is_some()) {
            return self.tree.update(place, attributes);
        }
        self.clear(place)?;
        self.tree.make_directory(place, attributes, path).map(drop)
    }

    /// Writes a regular file of `size` bytes. Blocks of zeros become holes.
    ///
    /// # Errors
    /// As of any path and metadata, and where `content` fails or ends early.
    pub fn file(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        size: u64,
        content: &mut dyn Read,
    ) -> Result<(), Ext4Error> {
        self.sparse_file(path, metadata, size, &[Segment { offset: 0, length: size }], content)
    }

    /// Writes a regular file of `size` bytes of which only `segments` are not holes; `content`
    /// has them one behind the other.
    ///
    /// # Errors
    /// As of any path and metadata, where the segments overlap, are out of order or pass the end
    /// of the file, and where `content` fails or ends early.
    pub fn sparse_file(
        &mut self,
        path: &[u8],
        metadata: &Metadata,
        size: u64,
        segments: &[Segment],
        content: &mut dyn Read,
    ) -> Result<(), Ext4Error> {
        let bytes = path;
        let (path, attributes) = (FsPath::parse(path)?, Attributes::new(metadata, path)?);
        if size > MAX_FILE {
            return Err(Ext4Error::FileTooLarge { path: path.shown(), size });
        }
        let mut end = 0;
        for segment in segments {
            if segment.offset < end || segment.length > size.saturating_sub(segment.offset) {
                return Err(Ext4Error::InvalidSegments { path: path.shown() });
            }
            end = segment.offset + segment.length;
        }
        let place = self.replaceable(path)?;
        self.clear(place)?;
        let extents = self.write_content(bytes, segments, content)?;
        let body = Body::File { size, extents: extents.into() };
        self.tree.insert(place, attributes, body).map(drop)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As of any path and metadata, and where the target cannot be one.
    pub fn symlink(&mut self, path: &[u8], metadata: &Metadata, target: &[u8]) -> Result<(), Ext4Error> {
        if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) {
            return Err(Ext4Error::InvalidTarget { path: shown(path), length: target.len() });
        }
        self.put(path, metadata, Body::Symlink(target.into()))
    }

    /// Makes a device, pipe or socket.
    ///
    /// # Errors
    /// As of any path and metadata.
    pub fn special(&mut self, path: &[u8], metadata: &Metadata, special: Special) -> Result<(), Ext4Error> {
        self.put(path, metadata, Body::Special(special))
    }

    /// Gives the file at `target`, which is no directory, another name.
    ///
    /// # Errors
    /// As of any path, and where there is no such file or it has too many names.
    pub fn hardlink(&mut self, path: &[u8], target: &[u8]) -> Result<(), Ext4Error> {
        let (path, target) = (FsPath::parse(path)?, FsPath::parse(target)?);
        let found = self.tree.locate(target, Missing::Leave)?.and_then(|place| self.tree.at(place));
        let Some(node) = found else {
            return Err(Ext4Error::MissingTarget { path: path.shown(), target: target.shown() });
        };
        if self.tree.directory(node).is_some() {
            return Err(Ext4Error::LinkToDirectory { path: path.shown(), target: target.shown() });
        }
        let place = self.replaceable(path)?;
        let replaced = self.tree.at(place);
        if replaced != Some(node) && self.tree.node(node).links >= MAX_LINKS {
            return Err(Ext4Error::TooManyLinks { path: path.shown(), limit: MAX_LINKS });
        }
        // Taken before the old name goes: it may be the last, or a directory that holds it.
        self.tree.pin(node);
        self.clear(place)?;
        let linked = self.tree.link(place, node);
        self.tree.unpin(node);
        linked
    }

    /// Removes a file, or a directory with all that is in it. Says whether there was one.
    /// Of the root only the content is removed.
    ///
    /// # Errors
    /// As of any path.
    pub fn remove(&mut self, path: &[u8]) -> Result<bool, Ext4Error> {
        let Some(place) = self.tree.locate(FsPath::parse(path)?, Missing::Leave)? else { return Ok(false) };
        let found = self.tree.at(place).is_some();
        self.clear(place)?;
        Ok(found)
    }

    /// Removes all that is in a directory. Says whether there is such a directory.
    ///
    /// # Errors
    /// As of any path.
    pub fn remove_children(&mut self, path: &[u8]) -> Result<bool, Ext4Error> {
        self.in_directory(path, Tree::remove_children)
    }

    /// Makes a directory the root of all paths and symbolic links that follow, as `chroot` does.
    /// It is made where missing.
    ///
    /// # Errors
    /// As of any path, and where it is not a directory.
    pub fn enter(&mut self, path: &[u8]) -> Result<(), Ext4Error> {
        let path = FsPath::parse(path)?;
        let place = self.place(path)?;
        let directory = match self.tree.at(place) {
            Some(node) if self.tree.directory(node).is_some() => node,
            Some(_) => {
                return Err(Ext4Error::NotADirectory { path: path.shown(), component: path.shown() });
            }
            None => self.tree.make_directory(place, Attributes::implied(), path)?,
        };
        self.tree.set_root(directory);
        Ok(())
    }

    /// Makes the root of the file system the root of paths again.
    pub fn leave(&mut self) {
        self.tree.set_root(NodeId::ROOT);
    }

    /// Counts what is beneath the root of paths, and that itself.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals { files: 0, bytes: 0 };
        let mut seen = vec![false; self.tree.slots()];
        let mut pending = vec![self.tree.root()];
        while let Some(id) = pending.pop() {
            if std::mem::replace(&mut seen[id.index()], true) {
                continue;
            }
            totals.files += 1;
            match &self.tree.node(id).body {
                Body::File { size, .. } => totals.bytes = totals.bytes.saturating_add(*size),
                Body::Directory(directory) => pending.extend(directory.entries.values().map(|e| e.node)),
                Body::Symlink(_) | Body::Special(_) => {}
            }
        }
        totals
    }

    /// What follows is a layer of its own, for [`hide`](Self::hide).
    pub fn begin_layer(&mut self) {
        self.tree.begin_layer();
    }

    /// Removes what was at a path, or beneath it, before the current layer began.
    ///
    /// # Errors
    /// As of any path.
    pub fn hide(&mut self, path: &[u8]) -> Result<(), Ext4Error> {
        if let Some(place) = self.tree.locate(FsPath::parse(path)?, Missing::Leave)? {
            self.tree.hide(place);
        }
        self.release_freed()
    }

    /// Removes what was in a directory before the current layer began. Says whether there is
    /// such a directory.
    ///
    /// # Errors
    /// As of any path.
    pub fn hide_children(&mut self, path: &[u8]) -> Result<bool, Ext4Error> {
        self.in_directory(path, Tree::hide_children)
    }

    /// The type of the file at a path, where there is one. A symbolic link is one.
    ///
    /// # Errors
    /// As of any path.
    pub fn kind(&mut self, path: &[u8]) -> Result<Option<Kind>, Ext4Error> {
        let place = self.tree.locate(FsPath::parse(path)?, Missing::Leave)?;
        Ok(place.and_then(|place| self.tree.at(place)).map(|node| self.tree.node(node).body.kind()))
    }

    fn in_directory(&mut self, path: &[u8], act: fn(&mut Tree, NodeId)) -> Result<bool, Ext4Error> {
        let place = self.tree.locate(FsPath::parse(path)?, Missing::Leave)?;
        let found = place.and_then(|place| self.tree.at(place));
        let Some(directory) = found.filter(|node| self.tree.directory(*node).is_some()) else {
            return Ok(false);
        };
        act(&mut self.tree, directory);
        self.release_freed()?;
        Ok(true)
    }

    fn put(&mut self, path: &[u8], metadata: &Metadata, body: Body) -> Result<(), Ext4Error> {
        let (path, attributes) = (FsPath::parse(path)?, Attributes::new(metadata, path)?);
        let place = self.replaceable(path)?;
        self.clear(place)?;
        self.tree.insert(place, attributes, body).map(drop)
    }

    fn place<'a>(&mut self, path: FsPath<'a>) -> Result<Place<'a>, Ext4Error> {
        Ok(self.tree.locate(path, Missing::Create)?.unwrap_or(Place::Root))
    }

    /// The place of a path at which something other than a directory may be put.
    fn replaceable<'a>(&mut self, path: FsPath<'a>) -> Result<Place<'a>, Ext4Error> {
        match self.place(path)? {
            Place::Root => {
                Err(Ext4Error::InvalidPath { path: path.shown(), reason: "is the root, a directory" })
            }
            place @ Place::Entry { .. } => Ok(place),
        }
    }

    fn clear(&mut self, place: Place) -> Result<(), Ext4Error> {
        self.tree.remove(place);
        self.release_freed()
    }

    fn release_freed(&mut self) -> Result<(), Ext4Error> {
        for extent in self.tree.take_freed() {
            self.release(extent)?;
        }
        Ok(())
    }

    fn release(&mut self, extent: Extent) -> Result<(), Ext4Error> {
        self.space.release(extent.physical, extent.length);
        // Small runs wait for the end: most are used again.
        if extent.length >= PUNCH_AT_ONCE {
            self.file.punch(extent.physical, extent.length)?;
        }
        Ok(())
    }

    /// Writes a file's data and says where it went. On an error the blocks are free again.
    fn write_content(
        &mut self,
        path: &[u8],
        segments: &[Segment],
        content: &mut dyn Read,
    ) -> Result<Vec<Extent>, Ext4Error> {
        let most = segments.iter().map(|segment| segment.length.div_ceil(BLOCK_BYTES) + 1).sum::<u64>();
        let most = match segments {
            [whole] if whole.offset == 0 => whole.length.div_ceil(BLOCK_BYTES),
            _ => most,
        };
        let mut run = self.space.open(most)?;
        let mut extents = Vec::new();
        let written = self.write_segments(path, segments, content, &mut run, &mut extents);
        self.space.close(&run);
        match written {
            Ok(()) => Ok(extents),
            Err(error) => {
                for extent in extents {
                    self.release(extent)?;
                }
                Err(error)
            }
        }
    }

    fn write_segments(
        &mut self,
        path: &[u8],
        segments: &[Segment],
        content: &mut dyn Read,
        run: &mut Run,
        extents: &mut Vec<Extent>,
    ) -> Result<(), Ext4Error> {
        // The part of the file from `window` on is in the chunk, `filled` bytes of it.
        let (mut window, mut filled) = (0_u64, 0_usize);
        for segment in segments {
            let (mut at, end) = (segment.offset, segment.offset + segment.length);
            while at < end {
                if at - window >= CHUNK as u64 {
                    self.write_chunk(window, filled, run, extents)?;
                    (window, filled) = (at - at % BLOCK_BYTES, 0);
                }
                let from = usize::try_from(at - window).expect("less than a chunk");
                let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(CHUNK - from);
                self.chunk[filled..from].fill(0);
                content
                    .read_exact(&mut self.chunk[from..from + length])
                    .map_err(|source| Ext4Error::Read { path: shown(path), source })?;
                filled = from + length;
                at += length as u64;
            }
        }
        self.write_chunk(window, filled, run, extents)
    }

    fn write_chunk(
        &mut self,
        window: u64,
        filled: usize,
        run: &mut Run,
        extents: &mut Vec<Extent>,
    ) -> Result<(), Ext4Error> {
        let first = u32::try_from(window / BLOCK_BYTES).expect("files have fewer blocks");
        for (logical, block) in (first..).zip(self.chunk[..filled].chunks(BLOCK)) {
            if *block == ZEROS[..block.len()] {
                continue;
            }
            let physical = self.space.next(run)?;
            extents::push(extents, logical, physical);
            self.file.write(physical, block)?;
        }
        Ok(())
    }
}
