//! Flags of files, which chattr(1) sets: all that there is of ioctl(2).
//!
//! The client's kernel gives numbers of descriptors as they are there, which mean nothing here, and asks for
//! nothing else of its own accord: `FICLONE` never comes. What shares blocks is `copy_file_range`, where the
//! host's file system does.

use rustix::{
    fs::{IFlags, ioctl_getflags, ioctl_setflags},
    io::Errno,
};
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{Passthrough, kept::Use, sys};
use crate::abi::{FsXattr, IoctlIn, IoctlOut};
use crate::server::Reply;

/// `FS_IOC_GETFLAGS` and its like of `linux/fs.h`.
const GET_FLAGS: u32 = 0x8008_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const GET_XATTR: u32 = 0x801c_581f;
const SET_XATTR: u32 = 0x401c_5820;

/// What a client may change: nothing that would bind the host's users, as not to remove a file does.
const FREE_FLAGS: IFlags = IFlags::NODUMP
    .union(IFlags::NOATIME)
    .union(IFlags::SYNC)
    .union(IFlags::DIRSYNC)
    .union(IFlags::COMPRESSED)
    .union(IFlags::NOCOW);
/// The same of [`FsXattr::xflags`]: `FS_XFLAG_SYNC`, `_NOATIME` and `_NODUMP`.
const FREE_XFLAGS: u32 = 0x20 | 0x40 | 0x80;

impl Passthrough {
    /// # Errors
    /// `ENOTTY` for all that is not known, `EPERM` where more would change than may.
    pub(crate) fn ioctl(&self, node: u64, of: &IoctlIn, data: &[u8], reply: &mut Reply) -> Result<(), Errno> {
        if !matches!(of.cmd, GET_FLAGS | SET_FLAGS | GET_XATTR | SET_XATTR) {
            return Err(Errno::NOTTY);
        }
        let handle = self.file(node, of.fh, Use::Read)?;
        let file = &handle.file;
        let mut found = [0; size_of::<FsXattr>()];
        match of.cmd {
            GET_FLAGS => found[..4].copy_from_slice(&ioctl_getflags(file)?.bits().to_ne_bytes()),
            GET_XATTR => found = sys::get_xattr(file)?,
            SET_FLAGS => {
                self.may_change()?;
                let (flags, _) = u32::read_from_prefix(data).map_err(|_| Errno::INVAL)?;
                let (before, after) = (ioctl_getflags(file)?, IFlags::from_bits_retain(flags));
                if !FREE_FLAGS.contains(before ^ after) {
                    return Err(Errno::PERM);
                }
                ioctl_setflags(file, after)?;
            }
            _ => {
                self.may_change()?;
                let (after, _) = FsXattr::read_from_prefix(data).map_err(|_| Errno::INVAL)?;
                let before = FsXattr::read_from_bytes(&sys::get_xattr(file)?).map_err(|_| Errno::IO)?;
                let fixed = |of: &FsXattr| (of.xflags & !FREE_XFLAGS, of.extsize, of.projid, of.cowextsize);
                if fixed(&before) != fixed(&after) {
                    return Err(Errno::PERM);
                }
                let mut bytes = [0; size_of::<FsXattr>()];
                bytes.copy_from_slice(FsXattr { pad: [0; 2], ..after }.as_bytes());
                sys::set_xattr(file, &bytes)?;
            }
        }
        reply.put(&IoctlOut::default());
        // As much as was asked for, and there is.
        reply.bytes(&found[..(of.out_size as usize).min(found.len())]);
        Ok(())
    }
}
