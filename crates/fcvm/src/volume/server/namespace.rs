//! A server for an ordinary user whose guest has users of its own: root of a user namespace, with the
//! user's subordinate ids, as rootless Podman has it.
//!
//! ```text
//!  server: a namespace --"made"--> owner: newuidmap, newgidmap --"mapped"--> server: root of it
//! ```
//! In the guest root is the user, and id N > 0 is the Nth of the user's ranges.

use std::{fs, io, process::Command};

use rustix::{
    process::{Gid, Signal, Uid, getgid, getuid, set_parent_process_death_signal},
    thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

use crate::process::unshare;

/// A user's subordinate ids: where they begin, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ranges {
    uids: (u32, u32),
    gids: (u32, u32),
}

impl Ranges {
    /// Those of this user; `None` where there are not both.
    pub(super) fn of_this_user() -> Option<Self> {
        let uid = getuid().as_raw();
        let name = name(&fs::read_to_string("/etc/passwd").ok()?, uid);
        let find = |path| range(&fs::read_to_string(path).ok()?, uid, name.as_deref());
        Some(Self { uids: find("/etc/subuid")?, gids: find("/etc/subgid")? })
    }

    /// Gives them to the namespace that a process has made.
    ///
    /// # Errors
    /// Where the programs that may do that are missing, or refuse.
    pub(super) fn map(&self, pid: u32) -> io::Result<()> {
        let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
        for (program, own, (start, count)) in [("newuidmap", uid, self.uids), ("newgidmap", gid, self.gids)] {
            let numbers = [pid, 0, own, 1, 1, start, count].map(|number| number.to_string());
            let output = Command::new(program).args(numbers).output().map_err(|error| {
                io::Error::new(error.kind(), format!("failed to start `{program}`: {error}"))
            })?;
            if !output.status.success() {
                let said = crate::output::sanitize(String::from_utf8_lossy(&output.stderr).trim());
                return Err(io::Error::other(format!("`{program}` failed: {said}")));
            }
        }
        Ok(())
    }
}

/// Makes the namespace, to be given ids by the owner. For a process with one thread.
pub(super) fn make() -> io::Result<()> {
    Ok(unshare(UnshareFlags::NEWUSER)?)
}

/// Becomes its root, once it has ids.
pub(super) fn enter() -> io::Result<()> {
    set_thread_groups(&[])?;
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    // Becoming another user has cancelled it.
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// A user's name, by `/etc/passwd`.
fn name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

/// A user's first range, by `/etc/subuid`: see subuid(5).
fn range(file: &str, uid: u32, name: Option<&str>) -> Option<(u32, u32)> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        let who = fields.next()?;
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (Some(who) == name || who.parse() == Ok(uid)).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found_by_name_and_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        assert_eq!(name(passwd, 1000).as_deref(), Some("user"));
        assert_eq!(name(passwd, 7), None);
        let file = "other:1:2\nbroken\nuser:100000:65536\n1001:200000:10\n";
        assert_eq!(range(file, 1000, Some("user")), Some((100_000, 65_536)));
        assert_eq!(range(file, 1001, None), Some((200_000, 10)));
        assert_eq!(range(file, 7, None), None);
    }
}
