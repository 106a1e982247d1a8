//! A child that sees of the host what it is shown, and nothing else.
//!
//! ```text
//!  fcvm -- keeper -- the program        namespaces: mount, network, PID, IPC; as an ordinary user,
//!          outside   inside             user. The last two may be given ones.
//!
//!  /               an empty, read-only tmpfs, but for what is shown: single files and directories,
//!                  mounted from where the host has them
//! ```
//! The mounts are the child's alone, so that they end with it: nothing is to be undone, whoever is killed.
//!
//! A process that makes a PID namespace is not in it: its first child is. So the process that fcvm starts
//! stays outside, as the *keeper*: it waits for the program and ends as that did. The kernel kills the
//! keeper with fcvm, and the program with the keeper.
//!
//! As an ordinary user the program has no capabilities, since it is not root in its user namespace; as root
//! only the one to open the files that it is shown, whoever owns them.

mod child;
mod error;
mod sys;
mod tap;
mod view;

use std::{
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use procfs::process::Process;
use rustix::{
    pipe::{PipeFlags, pipe_with},
    process::{getegid, geteuid},
};

pub use error::SandboxError;
pub use tap::{TAP, make_tap};
pub use view::{Access, View};

use self::child::{Identity, Membership, Prepared};
use super::Namespaces;

/// What a child will see, and who puts it there.
#[derive(Debug)]
pub struct Sandbox {
    view: View,
    extent: Extent,
    namespaces: Option<Arc<Namespaces>>,
}

/// How far the way into a sandbox is fcvm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The program starts in it.
    Entered,
    /// The program enters it, changes its user, and starts another.
    Prepared,
}

impl Sandbox {
    /// The program starts with this view as its root, in this directory of it.
    #[must_use]
    pub fn entered(view: View) -> Self {
        Self { view, extent: Extent::Entered, namespaces: None }
    }

    /// The program, as root, finds this view where it was made, and enters it by itself. That it changes
    /// its user cancels the kernel's promise to kill it with its parent, so that it has an init process of
    /// ours in its PID namespace, which the kernel kills with the keeper, and all others with that.
    #[must_use]
    pub fn prepared(view: View) -> Self {
        Self { view, extent: Extent::Prepared, namespaces: None }
    }

    /// Instead of a network of its own, and of a user namespace, it has these, if any. An ordinary user is
    /// themselves in the user namespace.
    #[must_use]
    pub fn within(self, namespaces: Option<Arc<Namespaces>>) -> Self {
        Self { namespaces, ..self }
    }

    /// Has `command`, a path in the sandbox, start there. To be called after
    /// [`die_with_parent`](super::die_with_parent).
    ///
    /// # Errors
    /// Where a pipe cannot be made.
    pub fn confine(self, command: &mut Command) -> io::Result<Confined> {
        let (report, report_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let sources = self.view.sources();
        let identity = || (!geteuid().is_root()).then(|| Identity::of(geteuid(), getegid()));
        let membership = self.namespaces.map_or_else(|| Membership::Own(identity()), Membership::Given);
        let depth = if self.extent == Extent::Entered { 1 } else { 2 };
        let prepared = Prepared::new(self.view, membership, self.extent == Extent::Entered);
        sys::before_exec(command, move || prepared.enter(&report_end));
        Ok(Confined { report, sources, depth })
    }
}

/// A child that was confined, or what is to be known where it could not be.
#[derive(Debug)]
pub struct Confined {
    report: OwnedFd,
    sources: Vec<PathBuf>,
    /// How many processes are between fcvm and the program.
    depth: u8,
}

impl Confined {
    /// The program's process, by the keeper's: one of this process's children that has not been waited for.
    #[must_use]
    pub fn program(&self, keeper: i32) -> Option<i32> {
        (0..self.depth).try_fold(keeper, |parent, _| only_child(parent))
    }

    /// What became of a start that failed with `error`; the command is to be dropped before.
    #[must_use]
    pub fn explain(self, error: io::Error) -> SandboxError {
        let mut said = Vec::new();
        // Nobody writes any more, so that this ends.
        match std::fs::File::from(self.report).read_to_end(&mut said) {
            Ok(_) => error::explain(&said, &self.sources, error),
            Err(_) => SandboxError::Start(error),
        }
    }
}

fn only_child(parent: i32) -> Option<i32> {
    let children = Process::new(parent).ok()?.task_main_thread().ok()?.children().ok()?;
    children.first().and_then(|&child| child.try_into().ok())
}

/// Whether a program can be started in a sandbox here: starts one.
///
/// # Errors
/// Why not.
pub fn probe() -> Result<(), SandboxError> {
    let start = || {
        let root = tempfile::tempdir()?;
        let mut view = View::at(root.path());
        show_libraries(&mut view)?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", ":"]).stdin(Stdio::null());
        let confined = Sandbox::entered(view).confine(&mut command)?;
        Ok((command.status(), confined))
    };
    match start().map_err(SandboxError::Start)? {
        (Ok(_), _) => Ok(()),
        (Err(error), confined) => Err(confined.explain(error)),
    }
}

/// Why programs other than the simplest need it: what their libraries and interpreters lie in.
pub fn show_libraries(view: &mut View) -> io::Result<()> {
    const PLACES: [&str; 9] = [
        "/bin",
        "/usr",
        "/lib",
        "/lib64",
        "/nix/store",
        "/gnu/store",
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/alternatives",
    ];
    for place in PLACES.map(Path::new).into_iter().filter(|place| place.exists()) {
        view.show(place, place, Access::Execute)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
