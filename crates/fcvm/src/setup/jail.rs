//! Keeps what mmdebstrap does together, so that it ends and can be removed.
//!
//! mmdebstrap mounts into the tree it makes and starts apt and dpkg. Killed, it
//! leaves mounts (as root, in the caller's namespace), children that work on, and
//! a tree; asked to end, it ignores that for as long as a step takes. So it runs
//! in mount and PID namespaces of its own, by `unshare` of util-linux: killing that
//! kills and unmounts everything. An ordinary user's run is root in a user namespace
//! with the user's subordinate ids, who own the tree's files: what was left of it
//! can only be removed in such a namespace too.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::Signal;

use super::SetupError;
use crate::storage::{DataDir, TEMPORARY_PREFIX};

const UNSHARE: &str = "unshare";
const NAMESPACES: [&str; 5] = ["--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL"];
const USER: [&str; 2] = ["--map-root-user", "--map-auto"];

/// Which namespaces can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Jail {
    /// Mounts and PIDs: for root.
    Root,
    /// Those in a user namespace: for an ordinary user.
    User,
    /// None, for instance within a container: mmdebstrap does what it can.
    None,
}

impl Jail {
    fn of_host() -> Self {
        let jail = if rustix::process::geteuid().is_root() { Self::Root } else { Self::User };
        let mut probe = jail.command("true");
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if probe.status().is_ok_and(|status| status.success()) { jail } else { Self::None }
    }

    fn command(self, program: &str) -> Command {
        let flags: &[&[&str]] = match self {
            Self::Root => &[&NAMESPACES],
            Self::User => &[&USER, &NAMESPACES],
            Self::None => return Command::new(program),
        };
        let mut command = Command::new(UNSHARE);
        command.args(flags.iter().copied().flatten()).arg("--").arg(program);
        command
    }
}

/// A place to work in, for as long as a set-up takes.
#[derive(Debug)]
pub(super) struct Workshop {
    jail: Jail,
    directory: Option<tempfile::TempDir>,
}

impl Workshop {
    /// Opens one. It has a temporary name in the cache, so that the next set-up removes
    /// what a kill leaves of it.
    pub(super) fn open(data: &DataDir) -> Result<Self, SetupError> {
        let jail = Jail::of_host();
        // Without a user namespace, mmdebstrap's own has ids that may not enter a user's
        // directories: it uses `/tmp`.
        if jail == Jail::None && !rustix::process::geteuid().is_root() {
            return Ok(Self { jail, directory: None });
        }
        let make = || -> io::Result<tempfile::TempDir> {
            fs_err::create_dir_all(data.cache())?;
            let directory = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(data.cache())?;
            // apt drops its privileges for downloads where it can, and has to pass.
            rustix::fs::chmod(directory.path(), rustix::fs::Mode::from_raw_mode(0o755))?;
            Ok(directory)
        };
        match make() {
            Ok(directory) => Ok(Self { jail, directory: Some(directory) }),
            Err(source) => Err(SetupError::io("create work directory in", &data.cache(), source)),
        }
    }

    /// A command that works in it.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = self.jail.command(program);
        if let Some(directory) = &self.directory {
            command.env("TMPDIR", directory.path());
        }
        command
    }

    /// What ends such a command. `unshare` ignores SIGTERM; killed, it takes all along.
    pub(super) fn signal(&self) -> Signal {
        match self.jail {
            Jail::Root | Jail::User => Signal::KILL,
            Jail::None => Signal::TERM,
        }
    }
}

/// Removes what a killed set-up left: a file, or a directory with all that is in it.
pub(super) fn remove(path: &Path) -> Result<(), SetupError> {
    let failed = |source| SetupError::io("remove", path, source);
    let removed = if path.is_dir() && !path.is_symlink() {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // Files of subordinate ids.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut command = Jail::of_host().command("rm");
            command.arg("-rf").arg("--").arg(path);
            let output = command.stdin(Stdio::null()).output().map_err(failed)?;
            if output.status.success() { Ok(()) } else { Err(failed(error)) }
        }
        result => result.map_err(failed),
    }
}
