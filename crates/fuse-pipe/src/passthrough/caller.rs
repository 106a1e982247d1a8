//! New files belong to who makes them: for as long as that takes, this thread is the caller.

use rustix::{
    fs::Mode,
    io::Errno,
    process::{Gid, Uid, geteuid, umask},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::server::Caller;

/// Runs `make` as the caller, with the caller's mask.
///
/// The kernel knows best what a mask, a default ACL and a directory's set-group-id bit make of a mode, and
/// whether the file may be made.
///
/// # Errors
/// What `make` fails with.
pub(super) fn as_caller<T>(
    caller: &Caller,
    mask: u32,
    make: impl FnOnce() -> Result<T, Errno>,
) -> Result<T, Errno> {
    let _identity = Identity::take(caller)?;
    // Workers have a mask each: see the lanes.
    let before = umask(Mode::from_raw_mode(mask & 0o777));
    let made = make();
    umask(before);
    made
}

/// This thread is another user until the end.
struct Identity {
    changed: bool,
}

impl Identity {
    fn take(caller: &Caller) -> Result<Self, Errno> {
        let changed = geteuid().is_root() && (caller.uid, caller.gid) != (0, 0);
        let identity = Self { changed };
        if changed {
            let group = caller.group.map(Gid::from_raw);
            set_thread_groups(group.as_slice())?;
            let gid = Gid::from_raw(caller.gid);
            set_thread_res_gid(Gid::ROOT, gid, Gid::ROOT)?;
            let uid = Uid::from_raw(caller.uid);
            set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT)?;
        }
        Ok(identity)
    }
}

impl Drop for Identity {
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
