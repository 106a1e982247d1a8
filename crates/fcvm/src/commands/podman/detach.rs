//! The parent of a detached start: starts the same program again as the VM's supervisor, and
//! waits until it says that the container runs. See [`Parent`](crate::process::Parent).

use std::{
    env,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{ExitCode, Stdio},
};

use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use super::SUPERVISOR;
use crate::{
    commands,
    output::Printer,
    process::{ACKNOWLEDGED, Owner},
    state::{Registry, RuntimeDir, StateError},
    storage::DataDir,
    vm::VmError,
};

/// Longest id.
const MAX_ID: u64 = 64;

/// Starts a VM in the background; tells its id.
pub(super) fn run(data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let mut told = Ok(());
    let started = start_and_tell(data, &[], |id| told = printer.data(id))?;
    told?;
    Ok(started.map_or_else(|code| code, |_| ExitCode::SUCCESS))
}

/// Starts a VM in the background, with more arguments than this process was given; its id, or the status of
/// a start that failed, of which the reason has been said.
pub(in crate::commands) fn start_one(
    data: &DataDir,
    more: &[String],
) -> anyhow::Result<Result<String, ExitCode>> {
    start_and_tell(data, more, |_| ())
}

/// The same; `tell` gets the id at once, before it is on record that the container runs.
fn start_and_tell(
    data: &DataDir,
    more: &[String],
    tell: impl FnOnce(&str),
) -> anyhow::Result<Result<String, ExitCode>> {
    let started = commands::block_on(start(more, tell))?;
    if let Ok(Started::Running(id)) = &started {
        return Ok(Ok(id.clone()));
    }
    // A supervisor that was ended, by whatever signal, may not have come to it.
    let registry = Registry::new(data, RuntimeDir::from_env());
    if let Err(error) = registry.collect_garbage() {
        tracing::warn!(%error, "what a failed start left could not be removed");
    }
    match started? {
        Started::Failed(code) => Ok(Err(ExitCode::from(code))),
        Started::Interrupted(signal) => Err(VmError::Interrupted { signal }.into()),
        Started::Running(id) => Ok(Ok(id)),
        Started::Died(supervisor) => {
            forget(&registry, supervisor.as_ref())?;
            anyhow::bail!("the VM's supervisor was killed")
        }
    }
}

/// Removes what is kept of a VM that ran, and of which nobody has heard.
fn forget(registry: &Registry, supervisor: Option<&Owner>) -> Result<(), StateError> {
    let all = registry.list_all()?;
    all.iter().filter(|vm| Some(&vm.owner) == supervisor).try_for_each(|vm| registry.remove_exited(vm))
}

/// How a start ended.
enum Started {
    /// The container of this VM runs.
    Running(String),
    /// It does not, and why has been said.
    Failed(u8),
    /// The user does not want it any more.
    Interrupted(i32),
    /// The supervisor, this one, ended by a signal.
    Died(Option<Owner>),
}

async fn start(more: &[String], tell: impl FnOnce(&str)) -> anyhow::Result<Started> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (ours, theirs) = UnixStream::pair()?;
    let mut supervisor = supervisor(theirs, more).context("failed to start the VM's supervisor")?;
    let identity = supervisor.id().and_then(|pid| Owner::of(pid.cast_signed()).ok().flatten());
    crate::failpoint::reach("parent-waits");
    ours.set_nonblocking(true)?;
    let mut socket = BufReader::new(tokio::net::UnixStream::from_std(ours)?);
    let mut id = String::new();
    let signal = {
        let mut limited = (&mut socket).take(MAX_ID);
        tokio::select! {
            read = limited.read_line(&mut id) => {
                if let Err(error) = read {
                    tracing::debug!(%error, "the supervisor's word is lost");
                }
                None
            }
            _ = interrupt.recv() => Some(SignalKind::interrupt()),
            _ = terminate.recv() => Some(SignalKind::terminate()),
            _ = hangup.recv() => Some(SignalKind::hangup()),
        }
    };
    crate::failpoint::reach("parent-told");
    if signal.is_none() && id.ends_with('\n') && socket.write_all(&[ACKNOWLEDGED]).await.is_ok() {
        crate::failpoint::reach("parent-acknowledged");
        let id = id.trim_end().to_owned();
        tell(&id);
        // The next command is to find on record that it runs. It does so in any case.
        tokio::select! {
            _ = socket.read_u8() => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        return Ok(Started::Running(id));
    }
    // It ends with the socket.
    drop(socket);
    let status = tokio::select! {
        status = supervisor.wait() => status?,
        _ = interrupt.recv(), if signal.is_some() => end(&mut supervisor).await?,
        _ = terminate.recv(), if signal.is_some() => end(&mut supervisor).await?,
    };
    Ok(match (signal, status.code()) {
        (Some(signal), _) => Started::Interrupted(signal.as_raw_value()),
        (None, Some(code)) => Started::Failed(u8::try_from(code).unwrap_or(u8::MAX)),
        (None, None) => Started::Died(identity),
    })
}

async fn end(supervisor: &mut Child) -> std::io::Result<std::process::ExitStatus> {
    supervisor.start_kill()?;
    supervisor.wait().await
}

/// This program, with these arguments and more, in this directory.
fn supervisor(socket: UnixStream, more: &[String]) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(SUPERVISOR).args(env::args_os().skip(1)).args(more);
    command.stdin(OwnedFd::from(socket)).stdout(Stdio::null()).spawn()
}
