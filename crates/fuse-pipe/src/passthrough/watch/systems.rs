//! Which file systems tell of every change.

use std::{
    collections::HashMap,
    os::fd::BorrowedFd,
    sync::{PoisonError, RwLock},
};

use rustix::{
    fs::{fstatfs, fstatvfs},
    io::Errno,
};

use super::Unwatched;

/// Those whose changes all go through this kernel, by `f_type` of statfs(2). Of a network's file system,
/// or FUSE, others change files unseen.
const LOCAL: [u64; 14] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x8584_58f6, // ramfs
    0xf2f5_2010, // f2fs
    0xca45_1a4e, // bcachefs
    0x2fc1_2fc1, // zfs
    0x794c_7630, // overlay
    0xe0f5_e1e2, // erofs
    0x7371_7368, // squashfs
    0x2011_bab0, // exfat
    0x4d44,      // vfat
    0x7366_746e, // ntfs3
];

/// A file system's id in events.
pub(super) type Id = [u8; 8];

/// The file systems in the tree, by their devices; `None` is one that is not local.
#[derive(Debug, Default)]
pub(super) struct Systems(RwLock<HashMap<(u32, u32), Option<Id>>>);

impl Systems {
    /// The id of the file system that a file of this device is on, where it is local.
    pub(super) fn id(&self, device: (u32, u32), file: BorrowedFd<'_>) -> Option<Id> {
        if let Some(&id) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&device) {
            return id;
        }
        let id = local(file).ok();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(device, id);
        id
    }
}

/// The id of the file system that the file is on.
///
/// # Errors
/// Where it is not local.
pub(super) fn local(file: BorrowedFd<'_>) -> Result<Id, Unwatched> {
    let stat = fstatfs(file).map_err(|errno: Errno| Unwatched::Kernel(errno.into()))?;
    let kind = u64::try_from(stat.f_type).unwrap_or_default() & u64::from(u32::MAX);
    if !LOCAL.contains(&kind) {
        return Err(Unwatched::FileSystem { kind });
    }
    let id = fstatvfs(file).map_err(|errno: Errno| Unwatched::Kernel(errno.into()))?.f_fsid;
    // Two numbers, of which this has the first as its low half.
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&u32::try_from(id & u64::from(u32::MAX)).unwrap_or_default().to_ne_bytes());
    bytes[4..].copy_from_slice(&u32::try_from(id >> 32).unwrap_or_default().to_ne_bytes());
    Ok(bytes)
}
