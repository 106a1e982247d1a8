//! Users and groups by name, from the files of a root directory: the container's, or the VM's own.

use std::{io::Read as _, os::fd::OwnedFd};

use anyhow::{Context as _, bail};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// No such file of anybody is longer.
const LIMIT: u64 = 4 << 20;

/// Who runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Further groups.
    pub(super) groups: Vec<u32>,
    pub(super) home: String,
}

/// The user of `USER[:GROUP]` within a root directory.
///
/// # Errors
/// Where a name is not in its files.
pub(super) fn look_up(root: &OwnedFd, wanted: &str) -> anyhow::Result<User> {
    find(&file(root, "etc/passwd"), &file(root, "etc/group"), wanted)
}

/// A file's text; nothing where it is not there or no file. Links do not lead out of the root.
fn file(root: &OwnedFd, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut text = Vec::new();
    if let Ok(file) = openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        let file = std::fs::File::from(file);
        if file.metadata().is_ok_and(|file| file.is_file())
            && let Err(error) = file.take(LIMIT).read_to_end(&mut text)
        {
            tracing::debug!(path, %error, "unreadable");
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// As Podman does: a name, else a number; without an entry the group is 0 and the home directory `/`;
/// the groups that list the user count unless a group is given.
fn find(passwd: &str, group: &str, wanted: &str) -> anyhow::Result<User> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    let entries = || passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
    // Only a group was given.
    let number = if name.is_empty() && group_name.is_some() { Some(0) } else { name.parse::<u32>().ok() };
    let entry = entries().find(|fields| fields.len() >= 6 && fields[0] == name).or_else(|| {
        entries().find(|fields| fields.len() >= 6 && fields[2].parse().ok() == number && number.is_some())
    });
    let mut user = match (&entry, number) {
        (Some(fields), _) => {
            let id = |text: &str| text.parse().with_context(|| format!("user `{name}` has no number"));
            User { uid: id(fields[2])?, gid: id(fields[3])?, groups: Vec::new(), home: fields[5].to_owned() }
        }
        (None, Some(uid)) => User { uid, gid: 0, groups: Vec::new(), home: String::new() },
        (None, None) => bail!("unable to find user {name}: no matching entries in passwd file"),
    };
    if user.home.is_empty() {
        user.home = "/".to_owned();
    }
    let groups = || group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    match group_name {
        Some(wanted) => {
            let named = groups().find(|fields| fields.len() >= 3 && fields[0] == wanted);
            let gid = named.and_then(|fields| fields[2].parse().ok()).or_else(|| wanted.parse().ok());
            let Some(gid) = gid else {
                bail!("unable to find group {wanted}: no matching entries in group file")
            };
            user.gid = gid;
        }
        None => {
            let name = entry.as_ref().map_or(name, |fields| fields[0]);
            let member =
                |fields: &Vec<&str>| fields.len() >= 4 && fields[3].split(',').any(|member| member == name);
            user.groups = groups().filter(member).filter_map(|fields| fields[2].parse().ok()).collect();
        }
    }
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n77:x:5:6::/n:/s\nbad\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:40:root,web\nmore:x:41:web\n";

    #[test]
    fn users_are_found_as_podman_finds_them() {
        let user = |uid, gid, groups: &[u32], home: &str| User {
            uid,
            gid,
            groups: groups.into(),
            home: home.into(),
        };
        for (wanted, expected) in [
            ("root", user(0, 0, &[40], "/root")),
            ("web", user(33, 34, &[40, 41], "/var/www")),
            ("33", user(33, 34, &[40, 41], "/var/www")),
            ("web:log", user(33, 40, &[], "/var/www")),
            ("web:7", user(33, 7, &[], "/var/www")),
            ("1000", user(1000, 0, &[], "/")),
            (":34", user(0, 34, &[], "/root")),
            ("1000:1001", user(1000, 1001, &[], "/")),
            // A name of digits is a name first.
            ("77", user(5, 6, &[], "/n")),
        ] {
            assert_eq!(find(PASSWD, GROUP, wanted).unwrap(), expected, "{wanted}");
        }
        for wanted in ["nobody", "", "web:nobody", "bad", "-1"] {
            assert!(find(PASSWD, GROUP, wanted).is_err(), "{wanted}");
        }
    }
}
