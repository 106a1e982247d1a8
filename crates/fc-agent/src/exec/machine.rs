//! Commands in the VM itself.

use std::{io, os::unix::process::CommandExt as _, process::Command, sync::Arc};

use fcvm_proto::{ExecRequest, FailureKind};
use rustix::fs::{Mode, OFlags, open};

use super::{
    Refusal,
    launch::{Launched, Pipes},
    users,
};
use crate::{podman, reaper::Reaper, terminal::Terminal};

/// Starts a command in the VM.
///
/// # Errors
/// Where there is no such command or user.
pub(super) async fn launch(request: &ExecRequest, reaper: &Reaper) -> Result<Launched, Refusal> {
    let [program, arguments @ ..] = request.command.as_slice() else {
        return Err(anyhow::anyhow!("there is no command").into());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", podman::PATH)
        .env("HOME", "/root")
        // Nobody else may go to root's home.
        .current_dir(request.workdir.as_deref().unwrap_or(if request.user.is_some() {
            "/"
        } else {
            "/root"
        }));
    if let Some(wanted) = &request.user {
        let root = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let user = users::look_up(&root, wanted)?;
        command.uid(user.uid).gid(user.gid).env("HOME", user.home);
    }
    let mut terminal = None;
    let pipes = match request.terminal {
        Some(size) => {
            let (master, slave) = Terminal::open(size)?;
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            command.env("TERM", "xterm");
            crate::sys::lead_a_session_with_terminal(&mut command);
            let pipes = Pipes::terminal(&master, request.interactive);
            terminal = Some(Arc::new(master));
            pipes
        }
        None => {
            let (pipes, given) = Pipes::of(request)?;
            given.give_to(&mut command);
            command.process_group(0);
            pipes
        }
    };
    command.envs(request.env.iter().map(|(name, value)| (name, value)));
    let (pid, ended) = reaper.spawn(&mut command).await.map_err(|error| refused(program, &error))?;
    Ok(Launched { ended, pid, pipes, terminal, starter: None })
}

fn refused(program: &str, error: &io::Error) -> Refusal {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => FailureKind::NotFound,
        _ => FailureKind::NotExecutable,
    };
    Refusal { kind, message: format!("`{program}` in the VM: {error}") }
}
