//! The content of files.

use std::fs::File;

use rustix::{
    fs::{
        FallocateFlags, FlockOperation, OFlags, SeekFrom, copy_file_range, fallocate, fdatasync, flock,
        fsync, seek, syncfs,
    },
    io::{Errno, pread, pwrite},
};

use super::{Cache, Passthrough, kept::Use, open_flags, versions::is_unchanged};
use crate::abi::{
    CopyFileRangeIn, FOPEN_KEEP_CACHE, FSYNC_FDATASYNC, FallocateIn, FlushIn, FsyncIn, LseekIn, OpenIn,
    OpenOut, RELEASE_FLOCK_UNLOCK, ReadIn, ReleaseIn, WRITE_KILL_SUIDGID, WriteIn,
};

impl Passthrough {
    pub(crate) fn open(&self, node: u64, of: &OpenIn) -> Result<OpenOut, Errno> {
        if self.opens_nothing() {
            return Err(Errno::NOSYS);
        }
        // It is shortened by a request of its own.
        let flags = open_flags(of.flags).difference(OFlags::TRUNC);
        if flags & OFlags::ACCMODE != OFlags::RDONLY {
            self.may_change()?;
        }
        let node = self.nodes.get(node)?;
        let file = self.open_node(&node, self.host_flags(flags))?;
        let keep = match self.cache() {
            Cache::Always | Cache::Exclusive => true,
            Cache::Auto => is_unchanged(&node, &file),
            Cache::Never => false,
        };
        let open_flags = if keep { FOPEN_KEEP_CACHE } else { 0 };
        Ok(OpenOut { fh: self.handles.add(file)?, open_flags, padding: 0 })
    }

    /// A file that was made.
    pub(super) fn made(&self, node: u64, file: File, flags: OFlags) -> Result<OpenOut, Errno> {
        let fh = if self.opens_nothing() {
            self.keep_made(node, file, flags)?;
            0
        } else {
            self.handles.add(file)?
        };
        let keep = matches!(self.cache(), Cache::Always | Cache::Exclusive);
        Ok(OpenOut { fh, open_flags: if keep { FOPEN_KEEP_CACHE } else { 0 }, padding: 0 })
    }

    pub(crate) fn release(&self, node: u64, of: &ReleaseIn) {
        if self.opens_nothing() {
            return self.close_made(node);
        }
        if of.release_flags & RELEASE_FLOCK_UNLOCK != 0
            && let Ok(handle) = self.handles.get(of.fh)
        {
            // Somebody may still be about to use it, and the lock would stay until then.
            if let Err(errno) = flock(&handle.file, FlockOperation::Unlock) {
                tracing::debug!(%errno, "a lock goes with its file");
            }
        }
        self.locks.drop_handle(node, of.fh);
        self.handles.remove(of.fh);
    }

    pub(crate) fn read(&self, node: u64, of: &ReadIn, to: &mut [u8]) -> Result<usize, Errno> {
        let handle = self.file(node, of.fh, Use::Read)?;
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

    pub(crate) fn write(&self, node: u64, of: &WriteIn, data: &[u8]) -> Result<u32, Errno> {
        self.may_change()?;
        let handle = self.file(node, of.fh, Use::Write)?;
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

    /// close(2) of one of several descriptors: the owner's locks go. Nothing is held back here that could fail
    /// now.
    ///
    /// # Errors
    /// `ENOSYS` where nothing is opened: then it is not asked for again.
    pub(crate) fn flush(&self, node: u64, of: &FlushIn) -> Result<(), Errno> {
        if self.opens_nothing() {
            return Err(Errno::NOSYS);
        }
        self.locks.drop_owner(node, of.lock_owner);
        self.handles.get(of.fh).map(drop)
    }

    pub(crate) fn fsync(&self, node: u64, of: &FsyncIn) -> Result<(), Errno> {
        let handle = self.file(node, of.fh, Use::Read)?;
        if of.fsync_flags & FSYNC_FDATASYNC != 0 { fdatasync(&handle.file) } else { fsync(&handle.file) }
    }

    pub(crate) fn syncfs(&self, node: u64) -> Result<(), Errno> {
        let root = self.open_node(&*self.nodes.get(node)?, OFlags::RDONLY)?;
        syncfs(&root)
    }

    pub(crate) fn fallocate(&self, node: u64, of: &FallocateIn) -> Result<(), Errno> {
        self.may_change()?;
        let handle = self.file(node, of.fh, Use::Write)?;
        let mode = FallocateFlags::from_bits(of.mode).ok_or(Errno::OPNOTSUPP)?;
        fallocate(&handle.file, mode, of.offset, of.length)
    }

    pub(crate) fn lseek(&self, node: u64, of: &LseekIn) -> Result<u64, Errno> {
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
        let handle = self.file(node, of.fh, Use::Read)?;
        // Nothing else uses the position of a file.
        seek(&handle.file, to)
    }

    pub(crate) fn copy_file_range(&self, node: u64, of: &CopyFileRangeIn) -> Result<u32, Errno> {
        self.may_change()?;
        let from = self.file(node, of.fh_in, Use::Read)?;
        let to = self.file(of.nodeid_out, of.fh_out, Use::Write)?;
        let (mut at, mut into) = (of.off_in, of.off_out);
        // The reply has 32 bits for the length.
        let length = usize::try_from(of.len.min(1 << 30)).map_err(|_| Errno::INVAL)?;
        let copied = copy_file_range(&from.file, Some(&mut at), &to.file, Some(&mut into), length)?;
        u32::try_from(copied).map_err(|_| Errno::INVAL)
    }
}
