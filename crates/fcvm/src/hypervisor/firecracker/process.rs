//! Firecracker's process: how it is started, and what its end means.
//!
//! ```text
//!  standard input   nothing
//!  standard output  a pipe: the guest's serial console
//!  standard error   a FIFO, which is its log too: its own messages
//! ```
//! Firecracker writes to all of these without waiting: what does not fit because nobody reads is lost,
//! and the guest runs on.
//!
//! It starts in a [sandbox](crate::process::sandbox), or in a [jail](super::jailer) where that is wanted;
//! where the host has no namespaces for us, without either, and with a warning.

use std::{
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat, open},
    pipe::{PipeFlags, pipe_with},
    process::{Signal, geteuid},
};

use super::{
    jailer::Jailer,
    places::{self, Places, RUN},
};
use crate::{
    hypervisor::{Death, HypervisorError, MachineConfig, Nic, Stop, VmmProcess},
    process::{
        die_with_parent,
        sandbox::{Confined, Sandbox, SandboxError, View},
    },
};

/// The socket of its API, among the machine's.
pub(super) const API_SOCKET: &str = "api.sock";
/// Its log, in the same place.
const MESSAGES: &str = "messages.fifo";
/// What it logs where KVM gives a guest up.
const KVM_ERROR: &str = "KVM_EXIT_INTERNAL_ERROR";
/// What an id may be long.
const MAX_ID: usize = 64;

/// A process and the ends of what it writes to.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) process: VmmProcess,
    pub(super) console: OwnedFd,
    pub(super) messages: OwnedFd,
    /// How it names what it is told of.
    pub(super) places: Places,
}

/// Starts it, in a sandbox where there can be one.
///
/// # Errors
/// Where it cannot be started, or its ends cannot be made.
pub(super) fn start(program: &Path, machine: &MachineConfig) -> Result<Process, HypervisorError> {
    let log = machine.runtime_dir.join(RUN).join(MESSAGES);
    let messages =
        fifo(&log).map_err(|source| HypervisorError::Start { program: program.to_owned(), source })?;
    if let Some(jail) = &machine.options.jail {
        return Jailer::find(program)?.start(jail, machine, &messages);
    }
    match sandboxed(program, machine, &messages) {
        Err(HypervisorError::Sandbox(error @ SandboxError::Namespaces(_))) => {
            let hint = error.hint().unwrap_or_default();
            tracing::warn!(%error, hint, "Firecracker runs without a sandbox");
            bare(program, machine, &messages)
        }
        started => started,
    }
}

fn sandboxed(program: &Path, machine: &MachineConfig, messages: &Fifo) -> Result<Process, HypervisorError> {
    let failed = |source| HypervisorError::Start { program: program.to_owned(), source };
    let mut places = Places::inside(machine);
    let root = places::make(&machine.runtime_dir).map_err(failed)?;
    let mut view = View::at(&root);
    let shown = |(path, source)| HypervisorError::Show { path, source };
    places::show_program(program, &mut view).map_err(shown)?;
    places.show(machine, &mut view).map_err(shown)?;
    view.start_in(&places.run).map_err(failed)?;
    places.connect(&mut view, geteuid().as_raw()).map_err(failed)?;
    let mut command = Command::new(places::PROGRAM);
    command.args(["--id", &id(&machine.name)]).args(arguments(&places));
    spawn(command, machine, Some(Sandbox::entered(view)), places, messages)
}

fn bare(program: &Path, machine: &MachineConfig, messages: &Fifo) -> Result<Process, HypervisorError> {
    let places = Places::bare(machine);
    let mut command = Command::new(program);
    command.args(["--id", &id(&machine.name)]).args(arguments(&places));
    command.current_dir(machine.runtime_dir.join(RUN));
    spawn(command, machine, None, places, messages)
}

/// What it is told on its command line, wherever it runs.
pub(super) fn arguments(places: &Places) -> [OsString; 6] {
    let (api, messages) = (places.run.join(API_SOCKET), places.run.join(MESSAGES));
    ["--api-sock".into(), api.into(), "--log-path".into(), messages.into(), "--level".into(), "Error".into()]
}

/// Starts a command that is, or becomes, Firecracker, in the namespaces of the machine's network.
pub(super) fn spawn(
    mut command: Command,
    machine: &MachineConfig,
    sandbox: Option<Sandbox>,
    places: Places,
    messages: &Fifo,
) -> Result<Process, HypervisorError> {
    let program = Path::new(command.get_program()).to_owned();
    let failed = |source: io::Error| HypervisorError::Start { program: program.clone(), source };
    let (console, console_end) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
    command
        // It needs nothing of ours, and the guest may get at what it has.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(console_end)
        .stderr(messages.write.try_clone().map_err(failed)?);
    // A terminal's Ctrl-C is for us, not for it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    die_with_parent(&mut command, Signal::KILL);
    tracing::debug!(target: "firecracker", ?command, ?sandbox, "starting");
    let namespaces = machine.network.as_ref().and_then(Nic::namespaces).cloned();
    let confined = match (sandbox, namespaces) {
        (Some(sandbox), namespaces) => {
            Some(sandbox.within(namespaces).confine(&mut command).map_err(failed)?)
        }
        (None, namespaces) => {
            if let Some(namespaces) = namespaces {
                namespaces.join(&mut command);
            }
            None
        }
    };
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn();
    let process = match (child, confined) {
        (Ok(child), None) => VmmProcess::new(child),
        (Ok(child), Some(confined)) => behind(child, &confined).map_err(failed)?,
        (Err(error), None) => return Err(failed(error)),
        (Err(error), Some(confined)) => return Err(confined.explain(error).into()),
    };
    let messages = messages.read.try_clone().map_err(failed)?;
    Ok(Process { process, console, messages, places })
}

/// The process behind the keeper.
fn behind(keeper: tokio::process::Child, confined: &Confined) -> io::Result<VmmProcess> {
    let number = keeper.id().map(u32::cast_signed);
    match number.and_then(|keeper| confined.program(keeper)) {
        Some(program) => VmmProcess::behind(keeper, program),
        // It has ended already: the keeper will tell how.
        None => Ok(VmmProcess::new(keeper)),
    }
}

/// Both ends of a FIFO: as long as one is open for writing, its reader sees no end.
#[derive(Debug)]
pub(super) struct Fifo {
    pub(super) read: OwnedFd,
    write: OwnedFd,
}

/// Makes a FIFO, also in place of one.
pub(super) fn fifo(path: &Path) -> io::Result<Fifo> {
    super::vsock::forget(path)?;
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    let read = open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let write = open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    Ok(Fifo { read, write })
}

/// An instance's id has letters, digits and hyphens.
fn id(name: &str) -> String {
    name.chars().take(MAX_ID).map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// What the end of the process tells. The codes are `FcExitCode` of Firecracker's `src/vmm/src/lib.rs`.
pub(super) fn death(status: ExitStatus, messages: &str) -> Death {
    let why = match status.code() {
        // By a race it ends with either.
        Some(0 | 1) if messages.contains(KVM_ERROR) => {
            "KVM could not run the guest on: is its kernel one for this KVM?"
        }
        // It has no way to power off.
        Some(0) => return Death::Guest(Stop::Reset),
        Some(1) => "it met an error, or was given a configuration that it cannot run",
        Some(2) => "it met an error that should not be",
        Some(148) => "its seccomp filter stopped a forbidden system call",
        Some(149) => "bus error: memory or a disk image was truncated, or the host has no memory left",
        Some(150) => "it accessed memory that it does not have",
        Some(151) => "a file grew beyond the limit of file sizes",
        Some(152) => "it was given a bad configuration",
        Some(153) => "it does not understand its arguments: another version?",
        Some(154) => "it ran beyond its limit of CPU time",
        Some(155) => "nobody reads what it writes",
        Some(156) => "it was hung up",
        Some(157) => "its program has an instruction that this CPU does not know",
        _ => return Death::Unknown,
    };
    Death::Explained(why)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Write as _},
        os::unix::process::ExitStatusExt as _,
    };

    use super::*;

    #[test]
    fn ids_are_what_firecracker_takes() {
        assert_eq!(id("web_1.x-Y"), "web-1-x-Y");
        assert_eq!(id(&"a".repeat(100)).len(), MAX_ID);
    }

    #[test]
    fn ends_are_explained() {
        let exited = |code: i32| death(ExitStatus::from_raw(code << 8), "");
        assert_eq!(exited(0), Death::Guest(Stop::Reset));
        assert!(matches!(exited(148), Death::Explained(why) if why.contains("seccomp")));
        assert!(matches!(exited(149), Death::Explained(why) if why.contains("bus error")));
        assert_eq!(exited(77), Death::Unknown);
        assert_eq!(death(ExitStatus::from_raw(9), ""), Death::Unknown);
        let given_up = death(ExitStatus::from_raw(0), "Received KVM_EXIT_INTERNAL_ERROR signal");
        assert!(matches!(given_up, Death::Explained(why) if why.starts_with("KVM could not")));
    }

    #[test]
    fn a_fifo_takes_the_place_of_a_stale_one_and_ends_with_its_writer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fifo");
        drop(fifo(&path).unwrap());
        let Fifo { read, write } = fifo(&path).unwrap();
        let mut said = String::new();
        File::from(write).write_all(b"hello").unwrap();
        File::from(read).read_to_string(&mut said).unwrap();
        assert_eq!(said, "hello");
    }
}
