//! Reading directories.

use std::sync::PoisonError;

use rustix::{fs::OFlags, io::Errno};

use super::{
    Cache, Passthrough,
    kept::Use,
    listing::{CHUNK, Room},
    nodes::Node,
};
use crate::{
    abi::{Dirent, EntryOut, FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE, FsyncIn, OpenOut, ReadIn},
    server::Reply,
};

/// Entries are padded to this.
const ALIGNMENT: usize = 8;

/// What is told of each name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    /// What kind of file it is.
    Kind,
    /// All that a lookup tells.
    Entry,
}

impl Passthrough {
    pub(crate) fn opendir(&self, node: u64) -> Result<OpenOut, Errno> {
        if self.opens_nothing() {
            return Err(Errno::NOSYS);
        }
        let file = self.open_node(&*self.nodes.get(node)?, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let keep = matches!(self.cache(), Cache::Always | Cache::Exclusive);
        let open_flags = if keep { FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR } else { 0 };
        Ok(OpenOut { fh: self.handles.add(file)?, open_flags, padding: 0 })
    }

    /// As many entries as there is room for, from a position that an entry before had. The kernel gives `.`
    /// and `..` as any other.
    pub(crate) fn readdir(&self, node: u64, of: &ReadIn, told: Told, reply: &mut Reply) -> Result<(), Errno> {
        let wanted = if of.offset == 0 { Use::List } else { Use::Read };
        let handle = self.file(node, of.fh, wanted)?;
        let node = self.nodes.get(node)?;
        let room = of.size as usize;
        // As many names as a client asks for with their files: these take longer.
        let chunk = if told == Told::Entry { CHUNK / 4 } else { CHUNK };
        let mut listing = handle.listing.lock().unwrap_or_else(PoisonError::into_inner);
        listing.read(&handle.file, of.offset, chunk, &self.unread, |entry| {
            let name = entry.name.to_bytes();
            let head = if told == Told::Entry { size_of::<EntryOut>() } else { 0 } + size_of::<Dirent>();
            let length = (head + name.len()).next_multiple_of(ALIGNMENT);
            if reply.len() + length > room {
                return Ok(Room::Lacking);
            }
            let start = reply.len();
            if told == Told::Entry {
                // Without a node where it went meanwhile.
                reply.put(&self.told(&node, entry.name).unwrap_or_default());
            }
            reply.put(&entry.head);
            reply.bytes(name);
            reply.bytes(&[0; ALIGNMENT][..start + length - reply.len()]);
            Ok(Room::Enough)
        })?;
        if told == Told::Entry && listing.lacks() {
            drop(listing);
            reply.read_ahead(handle);
        }
        Ok(())
    }

    /// Without a node, the kernel takes an entry for a name only.
    fn told(&self, parent: &Node, name: &std::ffi::CStr) -> Result<EntryOut, Errno> {
        if matches!(name.to_bytes(), b"." | b"..") {
            Ok(EntryOut::default())
        } else {
            self.find(parent, name)
        }
    }

    pub(crate) fn fsyncdir(&self, node: u64, of: &FsyncIn) -> Result<(), Errno> {
        self.fsync(node, of)
    }
}
