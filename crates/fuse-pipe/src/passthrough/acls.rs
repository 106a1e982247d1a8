//! Access control lists, which have users and groups in them: `struct posix_acl_xattr_header` and entries of
//! `linux/posix_acl_xattr.h`, little-endian everywhere.

use rustix::io::Errno;

use super::ids::{GuestGid, GuestUid, HostGid, HostUid, Identity};

const VERSION: u32 = 2;
const HEADER: usize = 4;
const ENTRY: usize = 8;
/// Tags of entries for one user, and for one group.
const USER: u16 = 2;
const GROUP: u16 = 8;

/// Whether that attribute is one.
pub(super) fn is_list(name: &[u8]) -> bool {
    matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default")
}

impl Identity {
    /// As the client has it. What is none stays as it is.
    pub(super) fn list_to_guest(&self, list: &mut [u8]) {
        let uid = |uid| Ok(self.guest_uid(HostUid(uid)).0);
        let gid = |gid| Ok(self.guest_gid(HostGid(gid)).0);
        // Neither of them fails.
        translate(list, uid, gid).unwrap_or_default();
    }

    /// As the host has it.
    ///
    /// # Errors
    /// `EPERM` where somebody is in it whom the host has no number for, `EOPNOTSUPP` where it is none.
    pub(super) fn list_to_host(&self, list: &mut [u8]) -> Result<(), Errno> {
        let entries = list.len().checked_sub(HEADER).ok_or(Errno::OPNOTSUPP)?;
        if !list.starts_with(&VERSION.to_le_bytes()) || !entries.is_multiple_of(ENTRY) {
            return Err(Errno::OPNOTSUPP);
        }
        let uid = |uid| self.host_uid(GuestUid(uid)).map(|uid| uid.0);
        let gid = |gid| self.host_gid(GuestGid(gid)).map(|gid| gid.0);
        translate(list, uid, gid)
    }
}

fn translate(
    list: &mut [u8],
    uid: impl Fn(u32) -> Result<u32, Errno>,
    gid: impl Fn(u32) -> Result<u32, Errno>,
) -> Result<(), Errno> {
    let Some(entries) = list.get_mut(HEADER..) else { return Ok(()) };
    for entry in entries.as_chunks_mut::<ENTRY>().0 {
        let [tag_low, tag_high, _, _, id @ ..] = entry;
        let number = u32::from_le_bytes(*id);
        let translated = match u16::from_le_bytes([*tag_low, *tag_high]) {
            USER => uid(number)?,
            GROUP => gid(number)?,
            _ => continue,
        };
        *id = translated.to_le_bytes();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passthrough::ids::Ids;

    #[test]
    fn users_and_groups_in_lists_are_translated() {
        let own = Identity::new(Ids::Squash { uid: GuestUid(3), gid: GuestGid(4) });
        let (uid, gid) = (own.host_uid(GuestUid(3)).unwrap().0, own.host_gid(GuestGid(4)).unwrap().0);
        let list = |user: u32, group: u32| {
            let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
            [&2_u32.to_le_bytes()[..], &entry(1, u32::MAX), &entry(2, user), &entry(8, group), &entry(32, 9)]
                .concat()
        };
        let mut bytes = list(uid, gid);
        own.list_to_guest(&mut bytes);
        assert_eq!(bytes, list(3, 4));
        own.list_to_host(&mut bytes).unwrap();
        assert_eq!(bytes, list(uid, gid));
        let mut others = list(uid + 1, gid + 1);
        own.list_to_guest(&mut others);
        assert_eq!(others, list(65534, 65534));
        assert_eq!(own.list_to_host(&mut others), Err(Errno::PERM));
        for mut bad in [vec![], vec![2, 0, 0], vec![3, 0, 0, 0], vec![2, 0, 0, 0, 1]] {
            assert_eq!(own.list_to_host(&mut bad), Err(Errno::OPNOTSUPP));
            own.list_to_guest(&mut bad);
        }
    }
}
