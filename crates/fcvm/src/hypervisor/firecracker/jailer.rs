//! Firecracker behind its own jailer, on request and as root.
//!
//! The jailer wants a directory with all that Firecracker is to see. That lies on a tmpfs of the jailer's
//! mount namespace, and what is shown is mounted into it, so that the jail ends with its process:
//!
//! ```text
//!  RUNTIME/root/firecracker/ID/root/    kernel, initrd, disks/, run/; the jailer adds the program and dev/
//! ```
//! The jailer changes to a user of the machine's own, which cancels the kernel's promise to kill it with
//! fcvm: see [`Sandbox::prepared`] for what keeps it. Its control group is [`cgroup`]'s.

use std::{
    fs::Permissions,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::geteuid;

use super::{
    places::{self, Places, RUN},
    process::{self, Fifo, Process},
};
use crate::{
    hypervisor::{Access, HypervisorError, Jail, MachineConfig},
    process::{
        cgroup::{self, Hierarchy},
        sandbox::{Sandbox, View},
    },
    setup::preflight::find_program,
};

/// The program's name.
const JAILER: &str = "jailer";
/// Memory of Firecracker's own, of its copy in the jail, and of what the host caches for it, in MiB.
const OVERHEAD_MIB: u32 = 128;
/// Threads of Firecracker besides the virtual CPUs', with room for those of a new version.
const THREADS: u8 = 8;
/// The group of all jails: what machines share is its to read. From here on are numbers that systemd's list
/// of ranges (`UIDS-GIDS.md`) gives to nobody.
const GROUP: u32 = 0x7000_0000;
/// How many users there are behind it.
const USERS: u32 = 0x0ff0_0000;

/// The jailer, and the Firecracker that it starts.
#[derive(Debug)]
pub(super) struct Jailer {
    program: PathBuf,
    firecracker: PathBuf,
}

impl Jailer {
    /// The jailer beside this Firecracker, as releases have it, else that in `PATH`.
    ///
    /// # Errors
    /// Where there is none, or this user or this Firecracker cannot use one.
    pub(super) fn find(firecracker: &Path) -> Result<Self, HypervisorError> {
        if !geteuid().is_root() {
            return Err(HypervisorError::JailerNeedsRoot);
        }
        let program = Some(firecracker.with_file_name(JAILER)).filter(|program| program.exists());
        let program = program.or_else(|| find_program(JAILER)).ok_or(HypervisorError::NoJailer)?;
        let libraries = places::needs_libraries(firecracker)
            .map_err(|source| HypervisorError::Start { program: firecracker.to_owned(), source })?;
        if libraries {
            return Err(HypervisorError::DynamicFirecracker { program: firecracker.to_owned() });
        }
        Ok(Self { program, firecracker: firecracker.to_owned() })
    }

    /// Starts a machine in a jail.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(super) fn start(
        &self,
        jail: &Jail,
        machine: &MachineConfig,
        messages: &Fifo,
    ) -> Result<Process, HypervisorError> {
        let failed = |source| HypervisorError::Start { program: self.program.clone(), source };
        let (uid, gid) = user(jail, &machine.id);
        let limits = limits(jail, machine);
        give(machine, uid, gid)?;
        let base = places::make(&machine.runtime_dir).map_err(failed)?;
        let name = self.firecracker.file_name().unwrap_or_default();
        let prefix = Path::new(name).join(&machine.id).join("root");
        let mut places = Places::inside(machine);
        let mut view = View::below(&base, &prefix).map_err(failed)?;
        places.show(machine, &mut view).map_err(|(path, source)| HypervisorError::Show { path, source })?;
        places.connect(&mut view, uid).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command
            .args(["--id", &machine.id])
            .arg("--exec-file")
            .arg(&self.firecracker)
            .args(["--uid", &uid.to_string(), "--gid", &gid.to_string()])
            .arg("--chroot-base-dir")
            .arg(&base);
        if !limits.is_empty() {
            command.args(["--cgroup-version", "2", "--parent-cgroup", cgroup::PARENT]);
        }
        for (file, value) in limits {
            command.args(["--cgroup", &format!("{file}={value}")]);
        }
        command.arg("--").args(process::arguments(&places));
        process::spawn(command, machine, Some(Sandbox::prepared(view)), places, messages)
    }
}

/// Whom Firecracker runs as in this jail, of the machine with this id.
pub(super) fn user(jail: &Jail, id: &str) -> (u32, u32) {
    jail.user.map_or_else(|| own_user(id), Into::into)
}

/// A user that hardly any other machine has, and the group of all.
fn own_user(id: &str) -> (u32, u32) {
    let random = id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or_default();
    (GROUP + 1 + random % USERS, GROUP)
}

/// Whether the host has the controllers for the user's settings.
///
/// # Errors
/// Where it lacks one.
pub(super) fn check(jail: &Jail) -> Result<(), HypervisorError> {
    let hierarchy = Hierarchy::find();
    match jail.cgroup.iter().find(|setting| !has_controller(hierarchy.as_ref(), setting.file())) {
        Some(setting) => Err(HypervisorError::NoController { setting: setting.file().to_owned() }),
        None => Ok(()),
    }
}

fn has_controller(hierarchy: Option<&Hierarchy>, file: &str) -> bool {
    let controller = file.split('.').next().unwrap_or_default();
    hierarchy.is_some_and(|hierarchy| hierarchy.has(controller))
}

/// Settings of the control group: the user's, and limits of what a machine of this size needs, where the
/// host has the controllers for them.
fn limits(jail: &Jail, machine: &MachineConfig) -> Vec<(String, String)> {
    let hierarchy = Hierarchy::find();
    let memory = u64::from(machine.memory_mib.saturating_add(OVERHEAD_MIB)) << 20;
    let usual = [
        ("memory.max", memory.to_string()),
        ("pids.max", (u16::from(machine.cpus) + u16::from(THREADS)).to_string()),
    ];
    let is_given = |file: &str| jail.cgroup.iter().any(|given| given.file() == file);
    let (possible, impossible): (Vec<_>, Vec<_>) = usual
        .into_iter()
        .filter(|(file, _)| !is_given(file))
        .partition(|(file, _)| has_controller(hierarchy.as_ref(), file));
    if !impossible.is_empty() {
        let files = impossible.iter().map(|(file, _)| *file).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            files,
            "the jail lacks limits: the host's unified control groups have no controllers for them"
        );
    }
    let mut limits: Vec<(String, String)> = jail.cgroup.iter().cloned().map(Into::into).collect();
    limits.extend(possible.into_iter().map(|(file, value)| (file.to_owned(), value)));
    limits
}

/// Gives the machine's own files to its user, and lets its group read what machines share.
fn give(machine: &MachineConfig, uid: u32, gid: u32) -> Result<(), HypervisorError> {
    let run = machine.runtime_dir.join(RUN);
    let (shared, own): (Vec<_>, Vec<_>) =
        machine.disks.iter().partition(|disk| disk.access == Access::ReadOnly);
    let sockets = std::fs::read_dir(&run)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>());
    let sockets = sockets.map_err(|source| HypervisorError::Give { path: run.clone(), uid, source })?;
    let own = own.into_iter().map(|disk| disk.path.clone());
    for path in own.chain(sockets).chain([run, machine.save_dir.clone()]) {
        chown(&path, Some(uid), Some(gid)).map_err(|source| HypervisorError::Give { path, uid, source })?;
    }
    let saved = machine.saved.iter().flat_map(|saved| match &saved.pages {
        Some(_) => vec![&saved.state],
        None => vec![&saved.state, &saved.memory],
    });
    if let Some(pages) = machine.saved.as_ref().and_then(|saved| saved.pages.as_ref()) {
        // Nobody gets to the socket but those to whom it is shown.
        std::fs::set_permissions(pages, Permissions::from_mode(0o666))
            .map_err(|source| HypervisorError::Give { path: pages.clone(), uid, source })?;
    }
    let shared = shared.into_iter().map(|disk| &disk.path).chain([&machine.kernel, &machine.initrd]);
    for path in shared.chain(saved) {
        let failed = |source| HypervisorError::Give { path: path.clone(), uid, source };
        let metadata = std::fs::metadata(path).map_err(failed)?;
        let mode = metadata.mode();
        let readable = mode & 0o004 != 0
            || (metadata.gid() == gid && mode & 0o040 != 0)
            || (metadata.uid() == uid && mode & 0o400 != 0);
        if readable {
            continue;
        }
        // Any jail of ours may read what is root's; whose group it has otherwise, is for the user to say.
        if gid != GROUP || metadata.uid() != 0 {
            return Err(HypervisorError::Unreadable { path: path.clone(), uid });
        }
        chown(path, None, Some(gid)).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode((mode & 0o7707) | 0o040)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_of_a_range_that_nobody_has() {
        let (uid, gid) = own_user("ffffffff00000000");
        assert_ne!((uid, gid), own_user("0000000000000000"));
        for id in ["ffffffff00", "0000000000", "0b5e55ed00"] {
            let (uid, gid) = own_user(id);
            assert!(uid > GROUP && uid < 0x8000_0000 && gid == GROUP, "{uid}");
        }
    }

    #[test]
    fn limits_are_the_users_before_ours() {
        let cgroup = vec!["memory.max=1G".parse().unwrap()];
        let limits = limits(&Jail { user: None, cgroup }, &crate::hypervisor::test_machine());
        assert_eq!(limits.iter().filter(|(file, value)| file == "memory.max" && value == "1G").count(), 1);
        assert_eq!(limits.iter().filter(|(file, _)| file == "memory.max").count(), 1);
        if let Some((_, threads)) = limits.iter().find(|(file, _)| file == "pids.max") {
            assert_eq!(threads, "10");
        }
    }
}
