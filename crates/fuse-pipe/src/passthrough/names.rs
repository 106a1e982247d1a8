//! Names in directories: found, made, moved, removed.

use std::ffi::CStr;

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Statx, Uid, chownat, linkat, mkdirat, mknodat,
        openat, readlinkat, renameat_with, symlinkat, unlinkat,
    },
    io::Errno,
};

use super::{
    Cache, Noted, Passthrough,
    caller::{as_caller, with_mask},
    ids::{GuestUid, Ids},
    nodes::Node,
    number, open_flags,
};
use crate::{
    abi::{CreateIn, EntryOut, MkdirIn, MknodIn, OpenOut},
    server::Caller,
};

/// How often a name is looked at again in a directory in which something happens meanwhile.
const LOOKS: usize = 3;

impl Passthrough {
    pub(crate) fn lookup(&self, parent: u64, name: &CStr) -> Result<EntryOut, Errno> {
        let parent = self.nodes.get(parent)?;
        let generation = parent.place().note_name(&parent, name.to_bytes());
        match self.find(&parent, name) {
            // The client may keep that, too, as long as it is told when there is such a name.
            Err(Errno::NOENT) if generation.is_some() && generation == parent.place().generation() => {
                Ok(self.absence(Noted::Yes))
            }
            // Or nobody else makes any.
            Err(Errno::NOENT) if matches!(self.cache(), Cache::Always | Cache::Exclusive) => {
                Ok(self.absence(Noted::No))
            }
            found => found,
        }
    }

    /// What there is by a name, and that the client knows it now.
    pub(super) fn find(&self, parent: &Node, name: &CStr) -> Result<EntryOut, Errno> {
        for _ in 0..LOOKS {
            let generation = parent.place().note_name(parent, name.to_bytes());
            let (nodeid, stat) = self.look(parent, name)?;
            if generation.is_none() {
                return Ok(self.entry(nodeid, &stat, Noted::No));
            }
            let Ok(node) = self.nodes.get(nodeid) else { continue };
            node.place().register(&node);
            node.place().cover(true);
            // Whatever changes from here on is told; what has changed before, unseen, is looked at again.
            if generation == parent.place().generation() {
                return Ok(self.entry(nodeid, &stat, Noted::Yes));
            }
            self.nodes.forget(nodeid, 1);
        }
        // Where so much happens nothing is worth keeping.
        let (nodeid, stat) = self.look(parent, name)?;
        Ok(self.entry(nodeid, &stat, Noted::No))
    }

    fn look(&self, parent: &Node, name: &CStr) -> Result<(u64, Statx), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(parent.fd(), name, flags, Mode::empty())?;
        self.nodes.tell(fd)
    }

    pub(crate) fn forget(&self, node: u64, times: u64) {
        self.nodes.forget(node, times);
    }

    pub(crate) fn readlink(&self, node: u64) -> Result<Vec<u8>, Errno> {
        let node = self.nodes.get(node)?;
        Ok(readlinkat(node.fd(), c"", Vec::new())?.into_bytes())
    }

    pub(crate) fn symlink(
        &self,
        caller: &Caller,
        parent: u64,
        name: &CStr,
        to: &CStr,
    ) -> Result<EntryOut, Errno> {
        self.may_change()?;
        let parent = self.nodes.get(parent)?;
        as_caller(&self.identity, caller, 0, || symlinkat(to, parent.fd(), name))?;
        self.find(&parent, name)
    }

    pub(crate) fn mknod(
        &self,
        caller: &Caller,
        parent: u64,
        name: &CStr,
        of: &MknodIn,
    ) -> Result<EntryOut, Errno> {
        self.may_change()?;
        let parent = self.nodes.get(parent)?;
        let (kind, mode) = (FileType::from_raw_mode(of.mode), Mode::from_raw_mode(of.mode & 0o7777));
        // The kernel's `new_decode_dev`.
        let device =
            rustix::fs::makedev((of.rdev & 0xfff00) >> 8, (of.rdev & 0xff) | ((of.rdev >> 12) & 0xfff00));
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if is_device {
            // To make one takes the server's rights; it is then given to the caller.
            with_mask(of.umask, || mknodat(parent.fd(), name, kind, mode, device))?;
            self.give(&parent, name, caller)?;
        } else {
            as_caller(&self.identity, caller, of.umask, || mknodat(parent.fd(), name, kind, mode, device))?;
        }
        self.find(&parent, name)
    }

    /// Gives what has just been made to the caller.
    fn give(&self, parent: &Node, name: &CStr, caller: &Caller) -> Result<(), Errno> {
        if self.identity.ids() != Ids::Same || caller.uid == GuestUid(0) {
            return Ok(());
        }
        let uid = Uid::from_raw(self.identity.host_uid(caller.uid)?.0);
        let gid = Gid::from_raw(self.identity.host_gid(caller.gid)?.0);
        chownat(parent.fd(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    pub(crate) fn mkdir(
        &self,
        caller: &Caller,
        parent: u64,
        name: &CStr,
        of: &MkdirIn,
    ) -> Result<EntryOut, Errno> {
        self.may_change()?;
        let parent = self.nodes.get(parent)?;
        let mode = Mode::from_raw_mode(of.mode & 0o7777);
        as_caller(&self.identity, caller, of.umask, || mkdirat(parent.fd(), name, mode))?;
        self.find(&parent, name)
    }

    pub(crate) fn unlink(&self, parent: u64, name: &CStr, flags: AtFlags) -> Result<(), Errno> {
        self.may_change()?;
        let parent = self.nodes.get(parent)?;
        unlinkat(parent.fd(), name, flags)?;
        // The client's kernel has forgotten it before anybody can ask anew.
        parent.place().take_name(name.to_bytes());
        Ok(())
    }

    pub(crate) fn rename(
        &self,
        parent: u64,
        name: &CStr,
        to: u64,
        new: &CStr,
        flags: u32,
    ) -> Result<(), Errno> {
        self.may_change()?;
        let (from, to) = (self.nodes.get(parent)?, self.nodes.get(to)?);
        let flags = RenameFlags::from_bits(flags).ok_or(Errno::INVAL)?;
        // The client keeps the new name for as long as it would have kept the old one.
        to.place().note_name(&to, new.to_bytes());
        renameat_with(from.fd(), name, to.fd(), new, flags)?;
        if flags.contains(RenameFlags::EXCHANGE) {
            from.place().note_name(&from, name.to_bytes());
        } else {
            from.place().take_name(name.to_bytes());
        }
        Ok(())
    }

    pub(crate) fn link(&self, node: u64, parent: u64, name: &CStr) -> Result<EntryOut, Errno> {
        self.may_change()?;
        let (node, parent) = (self.nodes.get(node)?, self.nodes.get(parent)?);
        // By its descriptor: the kernel's only way to link what has no name, too.
        linkat(&self.descriptors, number(&node), parent.fd(), name, AtFlags::SYMLINK_FOLLOW)?;
        self.find(&parent, name)
    }

    pub(crate) fn create(
        &self,
        caller: &Caller,
        parent: u64,
        name: &CStr,
        of: &CreateIn,
    ) -> Result<(EntryOut, OpenOut), Errno> {
        self.may_change()?;
        let parent = self.nodes.get(parent)?;
        let mode = Mode::from_raw_mode(of.mode & 0o7777);
        let exclusive = OFlags::from_bits_retain(of.flags) & OFlags::EXCL;
        let flags = self.host_flags(open_flags(of.flags)) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = as_caller(&self.identity, caller, of.umask, || {
            openat(parent.fd(), name, flags | OFlags::CREATE | OFlags::EXCL, mode)
        });
        let file = match made {
            Ok(file) => file.into(),
            // Somebody on the host was faster.
            Err(Errno::EXIST) if exclusive.is_empty() => {
                let entry = self.find(&parent, name)?;
                let opened = self.open_node(&*self.nodes.get(entry.nodeid)?, flags);
                let file = opened.inspect_err(|_| self.nodes.forget(entry.nodeid, 1))?;
                return Ok((entry, self.made(entry.nodeid, file, flags)?));
            }
            Err(errno) => return Err(errno),
        };
        let entry = self.find(&parent, name)?;
        Ok((entry, self.made(entry.nodeid, file, flags)?))
    }

    /// A file without a name, which linkat(2) may give one.
    pub(crate) fn tmpfile(
        &self,
        caller: &Caller,
        parent: u64,
        of: &CreateIn,
    ) -> Result<(EntryOut, OpenOut), Errno> {
        self.may_change()?;
        let parent = self.nodes.get(parent)?;
        let mode = Mode::from_raw_mode(of.mode & 0o7777);
        let exclusive = OFlags::from_bits_retain(of.flags) & OFlags::EXCL;
        let flags = self.host_flags(open_flags(of.flags)) | OFlags::TMPFILE | exclusive | OFlags::CLOEXEC;
        let directory = self.open_node(&parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let file = as_caller(&self.identity, caller, of.umask, || openat(&directory, c".", flags, mode))?;
        use std::os::fd::AsRawFd as _;
        let path = openat(
            &self.descriptors,
            file.as_raw_fd().to_string(),
            OFlags::PATH | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let (nodeid, stat) = self.nodes.tell(path)?;
        // Without a name no directory tells of it.
        Ok((self.entry(nodeid, &stat, Noted::No), self.made(nodeid, file.into(), flags)?))
    }

    /// How the host's file is opened for a client that caches writes: it also reads what it does not
    /// overwrite, and finds the end of the file itself. The same for one whose files are all one.
    pub(super) fn host_flags(&self, flags: OFlags) -> OFlags {
        if self.cache() != Cache::Exclusive && !self.opens_nothing() {
            return flags;
        }
        let flags = flags.difference(OFlags::APPEND);
        if flags & OFlags::ACCMODE == OFlags::WRONLY {
            flags.difference(OFlags::WRONLY) | OFlags::RDWR
        } else {
            flags
        }
    }
}
