//! Commands in the container: without Podman and its OCI runtime, which take twenty times as long and do the same.

use std::{
    borrow::Cow,
    io,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
    thread,
};

use anyhow::Context as _;
use fcvm_proto::{ExecRequest, FailureKind};
use rustix::{fs::inotify::WatchFlags, io::Errno, process::Pid};
use tokio::sync::{oneshot, watch};

use super::{
    Refusal,
    entrance::{Entrance, RUNTIME_STATE, Report},
    launch::{Launched, Pipes},
    process, users,
};
use crate::{
    directory::Directory,
    reaper::{Reaper, Spawned},
    sys,
    terminal::Terminal,
};

/// What waits there, for the word to start the container's program.
const START: &str = "exec.fifo";

/// The container while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// Podman's id of it.
    pub(crate) id: String,
    /// Its first process.
    pub(crate) pid: Pid,
    /// Found out once.
    entrance: Arc<OnceLock<Arc<Entrance>>>,
}

impl Running {
    pub(crate) fn new(id: String, pid: Pid) -> Self {
        Self { id, pid, entrance: Arc::default() }
    }

    /// Waits until its program has begun, or it is gone: the runtime makes it and starts it in two steps, and
    /// starts none that was killed before the second.
    ///
    /// # Errors
    /// Where what the runtime does cannot be watched.
    pub(crate) async fn begun(&self) -> anyhow::Result<()> {
        let directory = self.state();
        let removed = match Directory::watch(&directory, WatchFlags::DELETE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        };
        while directory.join(START).exists() {
            removed.changed().await?;
        }
        Ok(())
    }

    /// Finds out now what a command will need, where that is known.
    ///
    /// # Errors
    /// Where the container has just ended.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        if self.state().join(START).exists() { Ok(()) } else { self.entrance().map(drop) }
    }

    fn state(&self) -> PathBuf {
        Path::new(RUNTIME_STATE).join(&self.id)
    }

    fn entrance(&self) -> anyhow::Result<Arc<Entrance>> {
        if let Some(entrance) = self.entrance.get() {
            return Ok(Arc::clone(entrance));
        }
        let found = Arc::new(Entrance::find(&self.id, self.pid)?);
        Ok(Arc::clone(self.entrance.get_or_init(|| found)))
    }
}

/// Starts a command in the container.
///
/// # Errors
/// Where the container does not run, or has no such user.
pub(super) async fn launch(
    request: &ExecRequest,
    mut known: watch::Receiver<Option<Running>>,
    reaper: &Reaper,
) -> Result<Launched, Refusal> {
    let entrance = begun(&mut known).await?.entrance()?;
    let mut own = Cow::Borrowed(&entrance.process);
    let user = match &request.user {
        Some(wanted) => {
            let uid = own.user.uid.to_string();
            process::forget_home(own.to_mut(), &users::look_up(&entrance.root, &uid)?.home);
            Some(users::look_up(&entrance.root, wanted)?)
        }
        None => None,
    };
    let described = process::describe(&own, request, user.as_ref());
    let [program, arguments @ ..] = described.args.as_slice() else {
        return Err(anyhow::anyhow!("there is no command").into());
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(described.env.iter().map(|pair| pair.split_once('=').unwrap_or((pair, ""))));
    let (entry, report) = entrance.entry(&described, request.terminal.is_some())?;
    sys::enter(&mut command, entry);
    let (pipes, terminal) = match request.terminal {
        Some(size) => {
            let (master, other) = entrance.terminal().context("the container has no terminal for it")?;
            command.stdin(other.try_clone()?).stdout(other.try_clone()?).stderr(other);
            let terminal = Arc::new(Terminal::new(master, size)?);
            (Pipes::terminal(&terminal, request.interactive), Some(terminal))
        }
        None => (Pipes::of(request, &mut command)?, None),
    };
    let (program, workdir) = (program.clone(), described.cwd.clone());
    let spawned = spawn(entrance, command, reaper.clone()).await?;
    let (pid, ended) = spawned.map_err(|error| refused(report, &error, &program, &workdir))?;
    Ok(Launched { ended, pid, pipes, terminal })
}

/// Starts it from a thread of its own: the thread's children are the container's from then on, and the file system of
/// their programs may make them wait.
async fn spawn(
    entrance: Arc<Entrance>,
    mut command: Command,
    reaper: Reaper,
) -> anyhow::Result<io::Result<Spawned>> {
    let (sender, spawned) = oneshot::channel();
    let begin = move || {
        let adopted = entrance.adopt_children().map_err(io::Error::from);
        let result = adopted.and_then(|()| reaper.spawn_blocking(&mut command));
        // Our copies of the command's descriptors are closed by then.
        drop(command);
        if sender.send(result).is_err() {
            tracing::debug!("nobody waits for the command any more");
        }
    };
    thread::Builder::new().name("exec".into()).spawn(begin).context("failed to start a thread")?;
    spawned.await.context("the command's thread ended")
}

/// Why a command does not run.
fn refused(report: Report, error: &io::Error, program: &str, workdir: &str) -> Refusal {
    // Its first process has just ended.
    if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) {
        return absent();
    }
    let not_found = error.kind() == io::ErrorKind::NotFound;
    let kind = if not_found { FailureKind::NotFound } else { FailureKind::NotExecutable };
    match report.failed() {
        Some((_, true)) => Refusal { kind, message: format!("working directory `{workdir}`: {error}") },
        Some((step, false)) => {
            Refusal { kind: FailureKind::NotExecutable, message: format!("failed to {step}: {error}") }
        }
        None if not_found && !program.contains('/') => {
            Refusal { kind, message: format!("executable file `{program}` not found in $PATH") }
        }
        None => Refusal { kind, message: format!("`{program}`: {error}") },
    }
}

fn absent() -> Refusal {
    Refusal { kind: FailureKind::NotRunning, message: "the container does not run".into() }
}

/// The container once its program has begun.
async fn begun(known: &mut watch::Receiver<Option<Running>>) -> Result<Running, Refusal> {
    let running = known.borrow_and_update().clone().ok_or_else(absent)?;
    // Then it has begun long ago.
    if running.entrance.get().is_some() {
        return Ok(running);
    }
    tokio::select! {
        begun = running.begun() => {
            begun?;
            Ok(running)
        }
        _ = known.wait_for(Option::is_none) => Err(absent()),
    }
}
