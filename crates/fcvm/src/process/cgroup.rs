//! Control groups of machines, in the unified hierarchy (version 2).
//!
//! Each machine has one, `fcvm/ID`, below the hierarchy's root. The kernel keeps it when the last process in
//! it has ended: whoever collects a machine removes it.

use std::{fs, io, path::PathBuf};

use procfs::process::Process;
use rustix::process::geteuid;

/// What all are in.
pub const PARENT: &str = "fcvm";

/// The unified hierarchy.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    root: PathBuf,
}

impl Hierarchy {
    /// Where it is mounted; `None` where it is not.
    #[must_use]
    pub fn find() -> Option<Self> {
        let mounts = Process::myself().and_then(|process| process.mountinfo()).ok()?;
        let mount = mounts.into_iter().find(|mount| mount.fs_type == "cgroup2")?;
        Some(Self { root: mount.mount_point })
    }

    /// Whether it has this controller: not where that is in a hierarchy of version 1.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        fs::read_to_string(self.root.join("cgroup.controllers"))
            .is_ok_and(|controllers| controllers.split_ascii_whitespace().any(|name| name == controller))
    }

    /// The directory of a machine's.
    #[must_use]
    pub fn of(&self, id: &str) -> PathBuf {
        self.root.join(PARENT).join(id)
    }
}

/// Removes a machine's, if it has one.
///
/// # Errors
/// Where a process is in it still.
pub fn forget(id: &str) -> io::Result<()> {
    // Nobody else makes any.
    if !geteuid().is_root() {
        return Ok(());
    }
    let Some(hierarchy) = Hierarchy::find() else { return Ok(()) };
    match fs::remove_dir(hierarchy.of(id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
