//! What files are, and changes of that.

use std::{fs::File, time::Duration};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, Statx, Timespec, Timestamps, Uid, chmodat, chownat, fchmod,
        fstat, fstatvfs, ftruncate, utimensat,
    },
    io::Errno,
};

use super::{
    Noted, Passthrough,
    handles::Handle,
    ids::{GuestGid, GuestUid, HostGid, HostUid},
    kept::Use,
    nodes::Node,
    number,
    watch::VALIDITY,
};
use crate::abi::{self, Attr, AttrOut, EntryOut, Kstatfs, SetattrIn, StatxOut, SxTime, setattr};

/// `UTIME_NOW` and `UTIME_OMIT` of utimensat(2).
const NOW: i64 = (1 << 30) - 1;
const OMIT: i64 = (1 << 30) - 2;

impl Passthrough {
    pub(crate) fn getattr(&self, node: u64) -> Result<AttrOut, Errno> {
        let node = self.nodes.get(node)?;
        let noted = self.note(&node);
        Ok(self.attributes(&node.statx()?, noted))
    }

    pub(super) fn attributes(&self, stat: &Statx, noted: Noted) -> AttrOut {
        let valid = self.attributes_validity(stat, noted);
        AttrOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            dummy: 0,
            attr: self.attr(stat),
        }
    }

    /// What a lookup tells.
    pub(super) fn entry(&self, nodeid: u64, stat: &Statx, noted: Noted) -> EntryOut {
        let valid = self.attributes_validity(stat, noted);
        EntryOut {
            nodeid,
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            attr: self.attr(stat),
            ..self.absence(noted)
        }
    }

    /// What a lookup tells of a name that there is not.
    pub(super) fn absence(&self, noted: Noted) -> EntryOut {
        let valid = if noted == Noted::Yes { VALIDITY } else { self.validity() };
        EntryOut {
            entry_valid: valid.as_secs(),
            entry_valid_nsec: valid.subsec_nanos(),
            ..EntryOut::default()
        }
    }

    /// A file with several names may be changed by one that is not watched.
    fn attributes_validity(&self, stat: &Statx, noted: Noted) -> Duration {
        let single =
            stat.stx_nlink <= 1 || FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        if noted == Noted::Yes && single { VALIDITY } else { self.validity() }
    }

    /// To be called before a node is looked at, whose attributes or content go to the client.
    pub(super) fn note(&self, node: &Node) -> Noted {
        if node.place().note(node) { Noted::Yes } else { Noted::No }
    }

    pub(crate) fn statx(&self, node: u64) -> Result<StatxOut, Errno> {
        let node = self.nodes.get(node)?;
        let noted = self.note(&node);
        let stat = node.statx()?;
        let valid = self.attributes_validity(&stat, noted);
        let mut out = StatxOut {
            attr_valid: valid.as_secs(),
            attr_valid_nsec: valid.subsec_nanos(),
            ..StatxOut::default()
        };
        let time = |time: rustix::fs::StatxTimestamp| SxTime {
            tv_sec: time.tv_sec,
            tv_nsec: time.tv_nsec,
            reserved: 0,
        };
        out.stat = abi::Statx {
            mask: stat.stx_mask & 0xfff,
            blksize: stat.stx_blksize,
            attributes: stat.stx_attributes.bits(),
            nlink: stat.stx_nlink,
            uid: self.identity.guest_uid(HostUid(stat.stx_uid)).0,
            gid: self.identity.guest_gid(HostGid(stat.stx_gid)).0,
            mode: stat.stx_mode,
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            attributes_mask: stat.stx_attributes_mask.bits(),
            atime: time(stat.stx_atime),
            btime: time(stat.stx_btime),
            ctime: time(stat.stx_ctime),
            mtime: time(stat.stx_mtime),
            rdev_major: stat.stx_rdev_major,
            rdev_minor: stat.stx_rdev_minor,
            dev_major: stat.stx_dev_major,
            dev_minor: stat.stx_dev_minor,
            ..abi::Statx::default()
        };
        Ok(out)
    }

    pub(crate) fn setattr(&self, nodeid: u64, change: &SetattrIn) -> Result<AttrOut, Errno> {
        self.may_change()?;
        let node = self.nodes.get(nodeid)?;
        let has = |bit| change.valid & bit != 0;
        if has(setattr::MODE) {
            let mode = Mode::from_raw_mode(change.mode & 0o7777);
            chmodat(&self.descriptors, number(&node), mode, AtFlags::empty())?;
        }
        if has(setattr::UID) || has(setattr::GID) {
            // To chown(2) too, the number that is nobody's means no change.
            let uid = Some(change.uid).filter(|&uid| has(setattr::UID) && uid != u32::MAX).map(GuestUid);
            let gid = Some(change.gid).filter(|&gid| has(setattr::GID) && gid != u32::MAX).map(GuestGid);
            self.chown(&node, uid, gid)?;
        }
        if has(setattr::SIZE) {
            self.truncate(nodeid, &node, change)?;
        }
        let times = Timestamps {
            last_access: time(has(setattr::ATIME), has(setattr::ATIME_NOW), change.atime, change.atimensec),
            last_modification: time(
                has(setattr::MTIME),
                has(setattr::MTIME_NOW),
                change.mtime,
                change.mtimensec,
            ),
        };
        if has(setattr::ATIME) || has(setattr::MTIME) {
            utimensat(&self.descriptors, number(&node), &times, AtFlags::empty())?;
        }
        let noted = self.note(&node);
        Ok(self.attributes(&node.statx()?, noted))
    }

    fn chown(&self, node: &Node, uid: Option<GuestUid>, gid: Option<GuestGid>) -> Result<(), Errno> {
        let now = node.statx()?;
        let uid = uid.map(|uid| self.identity.new_uid(uid, HostUid(now.stx_uid))).transpose()?.flatten();
        let gid = gid.map(|gid| self.identity.new_gid(gid, HostGid(now.stx_gid))).transpose()?.flatten();
        let (uid, gid) = (uid.map(|uid| Uid::from_raw(uid.0)), gid.map(|gid| Gid::from_raw(gid.0)));
        chownat(node.fd(), c"", uid, gid, AtFlags::EMPTY_PATH)
    }

    fn attr(&self, stat: &Statx) -> Attr {
        Attr {
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            atime: stat.stx_atime.tv_sec.cast_unsigned(),
            mtime: stat.stx_mtime.tv_sec.cast_unsigned(),
            ctime: stat.stx_ctime.tv_sec.cast_unsigned(),
            atimensec: stat.stx_atime.tv_nsec,
            mtimensec: stat.stx_mtime.tv_nsec,
            ctimensec: stat.stx_ctime.tv_nsec,
            mode: stat.stx_mode.into(),
            nlink: stat.stx_nlink,
            uid: self.identity.guest_uid(HostUid(stat.stx_uid)).0,
            gid: self.identity.guest_gid(HostGid(stat.stx_gid)).0,
            rdev: device(stat.stx_rdev_major, stat.stx_rdev_minor),
            blksize: stat.stx_blksize,
            flags: 0,
        }
    }

    /// By the handle where there is one: who may no longer open the file may still shorten it by that.
    fn truncate(&self, nodeid: u64, node: &Node, change: &SetattrIn) -> Result<(), Errno> {
        let by_handle = change.valid & setattr::FH != 0;
        let handle = if by_handle { self.file(nodeid, change.fh, Use::Write).ok() } else { None };
        let shorten = |file: &File| {
            ftruncate(file, change.size)?;
            if change.valid & setattr::KILL_SUIDGID != 0 { drop_set_ids(file) } else { Ok(()) }
        };
        match handle.map(|handle| shorten(&handle.file)) {
            // Opened for reading, and to be shortened by that.
            None | Some(Err(Errno::INVAL)) => {
                shorten(&self.open_node(node, OFlags::WRONLY | OFlags::NONBLOCK)?)
            }
            Some(shortened) => shortened,
        }
    }

    pub(crate) fn statfs(&self, node: u64) -> Result<Kstatfs, Errno> {
        let node = self.nodes.get(node)?;
        let stat = fstatvfs(node.fd())?;
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Ok(Kstatfs {
            blocks: stat.f_blocks,
            bfree: stat.f_bfree,
            bavail: stat.f_bavail,
            files: stat.f_files,
            ffree: stat.f_ffree,
            bsize: small(stat.f_bsize),
            namelen: small(stat.f_namemax),
            frsize: small(stat.f_frsize),
            ..Kstatfs::default()
        })
    }

    /// access(2), of a client that does not check rights itself.
    pub(crate) fn access(&self, node: u64) -> Result<(), Errno> {
        self.nodes.get(node).map(drop)
    }
}

/// Whoever has no right to keep them loses them by a change: what the host's kernel does for others than root.
fn drop_set_ids(file: &File) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(fstat(file)?.st_mode);
    let mut left = mode.difference(Mode::SUID);
    // Without execution for the group it is a sign for mandatory locks.
    if mode.contains(Mode::XGRP) {
        left.remove(Mode::SGID);
    }
    if left == mode { Ok(()) } else { fchmod(file, left) }
}

impl Handle {
    /// See [`drop_set_ids`].
    pub(super) fn drop_set_ids(&self) -> Result<(), Errno> {
        drop_set_ids(&self.file)
    }
}

fn time(given: bool, now: bool, seconds: u64, nanoseconds: u32) -> Timespec {
    match (given, now) {
        (false, _) => Timespec { tv_sec: 0, tv_nsec: OMIT },
        (true, true) => Timespec { tv_sec: 0, tv_nsec: NOW },
        // Before 1970 it is negative.
        (true, false) => Timespec { tv_sec: seconds.cast_signed(), tv_nsec: nanoseconds.into() },
    }
}

/// The kernel's `new_encode_dev`.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}
