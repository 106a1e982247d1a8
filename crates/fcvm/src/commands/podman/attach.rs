//! The front of a container that has our terminal: starts the same program again as the VM's owner, and
//! passes signals on until that ends or the user leaves. See [`Front`](crate::process::Front).

use std::{
    env,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _, process::ExitStatusExt as _},
    },
    process::{Command, ExitCode, ExitStatus},
};

use anyhow::Context as _;
use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::AsyncReadExt as _,
    process::Child,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::ATTACHED;
use crate::{
    commands,
    output::SavedTerminal,
    process::{LEFT, SOCKET, die_with_parent},
};

/// How it ended for the user.
enum Ended {
    /// The owner has ended.
    Owner(ExitStatus),
    /// The user has left it.
    Left,
}

pub(super) fn run() -> anyhow::Result<ExitCode> {
    let terminal = SavedTerminal::save();
    Ok(match commands::block_on(attend())?? {
        Ended::Left => ExitCode::SUCCESS,
        Ended::Owner(status) => match (status.code(), status.signal()) {
            (Some(code), _) => ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => {
                // It could not do that itself.
                terminal.restore();
                ExitCode::from(u8::try_from(128 + signal.unwrap_or(0)).unwrap_or(u8::MAX))
            }
        },
    })
}

async fn attend() -> anyhow::Result<Ended> {
    let mut signals = listen()?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut owner = owner(theirs).context("failed to start the VM's process")?;
    let pid = owner.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    ours.set_nonblocking(true)?;
    let mut socket = tokio::net::UnixStream::from_std(ours)?;
    let mut open = true;
    loop {
        tokio::select! {
            said = socket.read_u8(), if open => match said {
                Ok(LEFT) => return Ok(Ended::Left),
                _ => open = false,
            },
            status = owner.wait() => return Ok(Ended::Owner(status?)),
            Some(signal) = signals.recv() => {
                if let Some(pid) = pid
                    && let Err(error) = kill_process(pid, signal)
                {
                    tracing::debug!(%error, "a signal is not passed on");
                }
            }
        }
    }
}

/// Signals that are the owner's to handle.
fn listen() -> anyhow::Result<mpsc::Receiver<Signal>> {
    let (sender, signals) = mpsc::channel(16);
    for of in
        [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH]
    {
        let mut stream = signal(SignalKind::from_raw(of.as_raw()))?;
        let sender = sender.clone();
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(of).await.is_ok() {} });
    }
    Ok(signals)
}

/// This program, with these arguments, in this directory, at this terminal.
fn owner(socket: UnixStream) -> anyhow::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(ATTACHED).args(env::args_os().skip(1));
    command.fd_mappings(vec![FdMapping { parent_fd: OwnedFd::from(socket), child_fd: SOCKET }])?;
    die_with_parent(&mut command, Signal::KILL);
    Ok(tokio::process::Command::from(command).spawn()?)
}
