//! The content of files.

use rustix::{
    fs::{FallocateFlags, OFlags, SeekFrom, copy_file_range, fallocate, fdatasync, fsync, seek, syncfs},
    io::{Errno, pread, pwrite},
};

use super::{Cache, Passthrough, open_flags};
use crate::abi::{
    CopyFileRangeIn, FOPEN_KEEP_CACHE, FSYNC_FDATASYNC, FallocateIn, FsyncIn, LseekIn, OPEN_KILL_SUIDGID,
    OpenIn, OpenOut, ReadIn, WRITE_KILL_SUIDGID, WriteIn,
};

impl Passthrough {
    pub(crate) fn open(&self, node: u64, of: &OpenIn) -> Result<OpenOut, Errno> {
        let flags = open_flags(of.flags);
        if flags & OFlags::ACCMODE != OFlags::RDONLY || flags.contains(OFlags::TRUNC) {
            self.may_change()?;
        }
        let file = self.open_node(&*self.nodes.get(node)?, self.host_flags(flags))?;
        if flags.contains(OFlags::TRUNC) && of.open_flags & OPEN_KILL_SUIDGID != 0 {
            super::attributes::drop_set_ids(&file)?;
        }
        Ok(self.opened(self.handles.add(file)?))
    }

    pub(super) fn opened(&self, fh: u64) -> OpenOut {
        let keep = matches!(self.cache(), Cache::Always | Cache::Exclusive);
        OpenOut { fh, open_flags: if keep { FOPEN_KEEP_CACHE } else { 0 }, padding: 0 }
    }

    pub(crate) fn release(&self, fh: u64) {
        self.handles.remove(fh);
    }

    pub(crate) fn read(&self, of: &ReadIn, to: &mut [u8]) -> Result<usize, Errno> {
        let handle = self.handles.get(of.fh)?;
        let mut read = 0;
        // A short answer means the file's end to the client.
        while read < to.len() {
            match pread(&handle.file, &mut to[read..], of.offset + read as u64) {
                Ok(0) => break,
                Ok(length) => read += length,
                Err(Errno::INTR) => {}
                Err(_) if read > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(read)
    }

    pub(crate) fn write(&self, of: &WriteIn, data: &[u8]) -> Result<u32, Errno> {
        self.may_change()?;
        let handle = self.handles.get(of.fh)?;
        let mut written = 0;
        while written < data.len() {
            match pwrite(&handle.file, &data[written..], of.offset + written as u64) {
                Ok(0) => break,
                Ok(length) => written += length,
                Err(Errno::INTR) => {}
                Err(_) if written > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        if of.write_flags & WRITE_KILL_SUIDGID != 0 {
            handle.drop_set_ids()?;
        }
        u32::try_from(written).map_err(|_| Errno::INVAL)
    }

    /// close(2) of one of several descriptors: nothing is held back here that could fail now.
    pub(crate) fn flush(&self, fh: u64) -> Result<(), Errno> {
        self.handles.get(fh).map(drop)
    }

    pub(crate) fn fsync(&self, of: &FsyncIn) -> Result<(), Errno> {
        let handle = self.handles.get(of.fh)?;
        if of.fsync_flags & FSYNC_FDATASYNC != 0 { fdatasync(&handle.file) } else { fsync(&handle.file) }
    }

    pub(crate) fn syncfs(&self, node: u64) -> Result<(), Errno> {
        let root = self.open_node(&*self.nodes.get(node)?, OFlags::RDONLY)?;
        syncfs(&root)
    }

    pub(crate) fn fallocate(&self, of: &FallocateIn) -> Result<(), Errno> {
        self.may_change()?;
        let handle = self.handles.get(of.fh)?;
        let mode = FallocateFlags::from_bits(of.mode).ok_or(Errno::OPNOTSUPP)?;
        fallocate(&handle.file, mode, of.offset, of.length)
    }

    pub(crate) fn lseek(&self, of: &LseekIn) -> Result<u64, Errno> {
        // The client's kernel does the others itself.
        let offset = of.offset.cast_signed();
        let to = match of.whence {
            whence if whence == libc::SEEK_DATA.cast_unsigned() => SeekFrom::Data(of.offset),
            whence if whence == libc::SEEK_HOLE.cast_unsigned() => SeekFrom::Hole(of.offset),
            _ => return Err(Errno::INVAL),
        };
        if offset < 0 {
            return Err(Errno::NXIO);
        }
        let handle = self.handles.get(of.fh)?;
        // Nothing else uses the position of a file.
        seek(&handle.file, to)
    }

    pub(crate) fn copy_file_range(&self, of: &CopyFileRangeIn) -> Result<u32, Errno> {
        self.may_change()?;
        let (from, to) = (self.handles.get(of.fh_in)?, self.handles.get(of.fh_out)?);
        let (mut at, mut into) = (of.off_in, of.off_out);
        // The reply has 32 bits for the length.
        let length = usize::try_from(of.len.min(1 << 30)).map_err(|_| Errno::INVAL)?;
        let copied = copy_file_range(&from.file, Some(&mut at), &to.file, Some(&mut into), length)?;
        u32::try_from(copied).map_err(|_| Errno::INVAL)
    }
}
