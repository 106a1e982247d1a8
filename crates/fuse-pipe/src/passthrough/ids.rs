//! Whose files are whose: users and groups of the client, and of the host.
//!
//! Each has its own type, so that no number passes from one side to the other as it is.

use rustix::{
    io::Errno,
    process::{getegid, geteuid},
};

macro_rules! numbers {
    ($($(#[doc = $doc:literal])* $name:ident)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct $name(pub u32);
    )*};
}

numbers! {
    /// A user, as the client numbers them.
    GuestUid
    /// A group, as the client numbers them.
    GuestGid
    /// A user of this host, or of the server's user namespace.
    HostUid
    /// A group of this host, or of the server's user namespace.
    HostGid
}

/// What everything belongs to that has no other owner: `overflowuid` and `overflowgid` of the kernel.
const NOBODY: u32 = 65534;
/// The number that stands for none.
const NOBODYS: u32 = u32::MAX;

/// Who in the client is who on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ids {
    /// Everybody is himself. The server is root for that, of the host, or of a user namespace with as many
    /// users as the client needs; as another user it makes files for that user only.
    #[default]
    Same,
    /// What belongs to the server's own user and group, which may be an ordinary user's, appears as these;
    /// all else as 65534's. Whoever makes a file, it is the server's, and nothing can be given away.
    Squash {
        /// The owner, usually 0.
        uid: GuestUid,
        /// Its group, usually 0.
        gid: GuestGid,
    },
}

/// The translation, for the user that the server is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    ids: Ids,
    uid: HostUid,
    gid: HostGid,
}

impl Identity {
    /// For the user that this thread is.
    pub(super) fn new(ids: Ids) -> Self {
        Self { ids, uid: HostUid(geteuid().as_raw()), gid: HostGid(getegid().as_raw()) }
    }

    pub(super) fn ids(&self) -> Ids {
        self.ids
    }

    /// How an owner appears.
    pub(super) fn guest_uid(&self, host: HostUid) -> GuestUid {
        match self.ids {
            Ids::Same => GuestUid(host.0),
            Ids::Squash { uid, .. } if host == self.uid => uid,
            Ids::Squash { .. } => GuestUid(NOBODY),
        }
    }

    /// How a group appears.
    pub(super) fn guest_gid(&self, host: HostGid) -> GuestGid {
        match self.ids {
            Ids::Same => GuestGid(host.0),
            Ids::Squash { gid, .. } if host == self.gid => gid,
            Ids::Squash { .. } => GuestGid(NOBODY),
        }
    }

    /// Whom the client means.
    ///
    /// # Errors
    /// `EPERM` for a user that the host has none for.
    pub(super) fn host_uid(&self, guest: GuestUid) -> Result<HostUid, Errno> {
        match self.ids {
            // To the kernel it would mean no change: files would be the server's.
            Ids::Same if guest.0 == NOBODYS => Err(Errno::OVERFLOW),
            Ids::Same => Ok(HostUid(guest.0)),
            Ids::Squash { uid, .. } if guest == uid => Ok(self.uid),
            Ids::Squash { .. } => Err(Errno::PERM),
        }
    }

    /// The same of a group.
    ///
    /// # Errors
    /// `EPERM` for a group that the host has none for.
    pub(super) fn host_gid(&self, guest: GuestGid) -> Result<HostGid, Errno> {
        match self.ids {
            Ids::Same if guest.0 == NOBODYS => Err(Errno::OVERFLOW),
            Ids::Same => Ok(HostGid(guest.0)),
            Ids::Squash { gid, .. } if guest == gid => Ok(self.gid),
            Ids::Squash { .. } => Err(Errno::PERM),
        }
    }

    /// The owner that a file is to get, which now has `now`; `None` where that is nothing new of somebody
    /// whom the client has no number for.
    pub(super) fn new_uid(&self, asked: GuestUid, now: HostUid) -> Result<Option<HostUid>, Errno> {
        match self.host_uid(asked) {
            Err(_) if asked == self.guest_uid(now) => Ok(None),
            uid => uid.map(Some),
        }
    }

    /// The same of the group.
    pub(super) fn new_gid(&self, asked: GuestGid, now: HostGid) -> Result<Option<HostGid>, Errno> {
        match self.host_gid(asked) {
            Err(_) if asked == self.guest_gid(now) => Ok(None),
            gid => gid.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_else_is_nobody() {
        let squash = Ids::Squash { uid: GuestUid(0), gid: GuestGid(5) };
        let identity = Identity { ids: squash, uid: HostUid(1000), gid: HostGid(100) };
        assert_eq!(identity.guest_uid(HostUid(1000)), GuestUid(0));
        assert_eq!(identity.guest_uid(HostUid(0)), GuestUid(NOBODY));
        assert_eq!(identity.guest_gid(HostGid(100)), GuestGid(5));
        assert_eq!(identity.guest_gid(HostGid(1000)), GuestGid(NOBODY));
        assert_eq!(identity.host_uid(GuestUid(0)), Ok(HostUid(1000)));
        assert_eq!(identity.host_uid(GuestUid(1000)), Err(Errno::PERM));
        assert_eq!(identity.host_gid(GuestGid(NOBODY)), Err(Errno::PERM));
        // Nobody's stays nobody's, and nothing else becomes it.
        assert_eq!(identity.new_uid(GuestUid(NOBODY), HostUid(7)), Ok(None));
        assert_eq!(identity.new_uid(GuestUid(NOBODY), HostUid(1000)), Err(Errno::PERM));
        assert_eq!(identity.new_gid(GuestGid(5), HostGid(100)), Ok(Some(HostGid(100))));
        let same = Identity { ids: Ids::Same, ..identity };
        assert_eq!((same.guest_uid(HostUid(7)), same.host_gid(GuestGid(7))), (GuestUid(7), Ok(HostGid(7))));
    }
}
