//! New files belong to who makes them: for as long as that takes, this thread is the caller.

use rustix::{
    fs::Mode,
    io::Errno,
    process::{Gid, Uid, getegid, geteuid, umask},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use super::ids::{Identity, Ids};
use crate::server::Caller;

/// Runs `make` as the caller, with the caller's mask.
///
/// The kernel knows best what a mask, a default ACL and a directory's set-group-id bit make of a mode, and
/// whether the file may be made.
///
/// # Errors
/// What `make` fails with; `EPERM` where this process cannot be the caller.
pub(super) fn as_caller<T>(
    identity: &Identity,
    caller: &Caller,
    mask: u32,
    make: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let _other = Other::take(identity, caller)?;
    with_mask(mask, make)
}

/// Runs `make` as the server, with the caller's mask.
///
/// # Errors
/// What `make` fails with.
pub(super) fn with_mask<T>(mask: u32, make: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    // Workers have a mask each: see the lanes.
    let before = umask(Mode::from_raw_mode(mask & 0o777));
    let made = make();
    umask(before);
    made
}

/// This thread is another user until the end.
struct Other {
    changed: bool,
}

impl Other {
    fn take(identity: &Identity, caller: &Caller) -> Result<Self, Errno> {
        if identity.ids() != Ids::Same {
            // All is the server's.
            return Ok(Self { changed: false });
        }
        let (uid, gid) = (identity.host_uid(caller.uid)?, identity.host_gid(caller.gid)?);
        let (own_uid, own_gid) = (geteuid(), getegid());
        if (uid.0, gid.0) == (own_uid.as_raw(), own_gid.as_raw()) {
            return Ok(Self { changed: false });
        }
        if !own_uid.is_root() {
            return Err(Errno::PERM);
        }
        // From here on there is a way back.
        let other = Self { changed: true };
        let group = caller.group.map(|group| identity.host_gid(group)).transpose()?;
        set_thread_groups(group.map(|group| Gid::from_raw(group.0)).as_slice())?;
        set_thread_res_gid(Gid::ROOT, Gid::from_raw(gid.0), Gid::ROOT)?;
        set_thread_res_uid(Uid::ROOT, Uid::from_raw(uid.0), Uid::ROOT)?;
        Ok(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        if self.changed {
            let back = set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
                .and_then(|()| set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT))
                .and_then(|()| set_thread_groups(&[]));
            // As somebody else it must not go on.
            back.expect("whoever is root by right becomes it again");
        }
    }
}
