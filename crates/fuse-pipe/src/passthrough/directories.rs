//! Reading directories.

use std::{mem::MaybeUninit, sync::PoisonError};

use rustix::{
    fs::{FileType, OFlags, RawDir, SeekFrom, seek},
    io::Errno,
};

use super::{Cache, Passthrough, kept::Use, nodes::Node};
use crate::{
    abi::{Dirent, EntryOut, FOPEN_CACHE_DIR, FOPEN_KEEP_CACHE, FsyncIn, OpenOut, ReadIn},
    server::Reply,
};

/// Entries are padded to this.
const ALIGNMENT: usize = 8;
/// How much is read of a directory at once: an answer is longer, as its entries are.
const CHUNK: usize = 32 << 10;

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
        let _position = handle.position.lock().unwrap_or_else(PoisonError::into_inner);
        // Positions may be any numbers: those of ext4 are hashes.
        seek(&handle.file, SeekFrom::Start(of.offset))?;
        let mut buffer = [MaybeUninit::uninit(); CHUNK];
        let mut entries = RawDir::new(&handle.file, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            let head = if told == Told::Entry { size_of::<EntryOut>() } else { 0 } + size_of::<Dirent>();
            let length = (head + name.to_bytes().len()).next_multiple_of(ALIGNMENT);
            if reply.len() + length > room {
                break;
            }
            let start = reply.len();
            if told == Told::Entry {
                match self.told(&node, name) {
                    Ok(told) => reply.put(&told),
                    // It went meanwhile.
                    Err(_) => reply.put(&EntryOut::default()),
                }
            }
            reply.put(&Dirent {
                ino: entry.ino(),
                off: entry.next_entry_cookie(),
                namelen: u32::try_from(name.to_bytes().len()).map_err(|_| Errno::NAMETOOLONG)?,
                kind: kind(entry.file_type()),
            });
            reply.bytes(name.to_bytes());
            reply.bytes(&[0; ALIGNMENT][..start + length - reply.len()]);
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

/// `DT_*` of readdir(3).
fn kind(kind: FileType) -> u32 {
    match kind {
        FileType::Fifo => 1,
        FileType::CharacterDevice => 2,
        FileType::Directory => 4,
        FileType::BlockDevice => 6,
        FileType::RegularFile => 8,
        FileType::Symlink => 10,
        FileType::Socket => 12,
        FileType::Unknown => 0,
    }
}
