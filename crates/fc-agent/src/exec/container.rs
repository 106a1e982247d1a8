//! Commands in the container: without Podman and its OCI runtime, which take twenty times as long and do the same.

use std::{
    borrow::Cow,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use anyhow::Context as _;
use fcvm_proto::{ExecRequest, FailureKind};
use rustix::{
    fs::inotify::WatchFlags,
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use tokio::sync::{oneshot, watch};

use super::{
    Refusal,
    entrance::{Entrance, RUNTIME_STATE, Report},
    launch::{Given, Launched, Pipes},
    process::{self, Process},
    users,
    zygote::Zygote,
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
    /// Podman, which looks now and then whether it still runs; not where it moves what goes over a terminal.
    watcher: Option<Pid>,
    /// Found out once.
    entrance: Arc<OnceLock<Arc<Entrance>>>,
    /// For the next command.
    zygote: Arc<Mutex<Option<Zygote>>>,
}

impl Running {
    pub(crate) fn new(id: String, pid: Pid, watcher: Option<Pid>) -> Self {
        Self { id, pid, watcher, entrance: Arc::default(), zygote: Arc::default() }
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

    /// Does now what would be done while somebody waits for a guest that goes on from a snapshot: has a process
    /// enter for the first command, and Podman not look after it, a hundred times a second: there that stays so until
    /// the container has ended.
    ///
    /// # Errors
    /// Where the container has just ended.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        if self.state().join(START).exists() {
            return Ok(());
        }
        let entrance = self.entrance()?;
        let process = process::usual(&entrance.process);
        let (entry, _) = entrance.entry(&process, false)?;
        *self.zygote() = Some(Zygote::fork(entry, process).context("failed to fork")?);
        self.tell_watcher(Signal::STOP);
        Ok(())
    }

    /// Ends what [`prepare`](Self::prepare) began, where nobody will use it.
    pub(crate) fn relax(&self) {
        drop(self.zygote().take());
        self.tell_watcher(Signal::CONT);
    }

    fn tell_watcher(&self, signal: Signal) {
        // It is a child of ours that has not been reaped, as the container runs.
        if let Some(error) = self.watcher.and_then(|watcher| kill_process(watcher, signal).err()) {
            tracing::debug!(%error, ?signal, "Podman got no signal");
        }
    }

    fn zygote(&self) -> MutexGuard<'_, Option<Zygote>> {
        self.zygote.lock().unwrap_or_else(PoisonError::into_inner)
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
    let running = begun(&mut known).await?;
    let entrance = running.entrance()?;
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
    let Some(program) = described.args.first() else {
        return Err(anyhow::anyhow!("there is no command").into());
    };
    let Some(size) = request.terminal else {
        let (pipes, given) = Pipes::of(request)?;
        let ahead = running.zygote().take_if(|zygote| zygote.is_for(&described));
        if let Some(zygote) = ahead {
            let started = reaper.adopt(zygote.start(&described, &given)).await;
            let started = started.map_err(|error| refused(None, &error, program, &described.cwd))?;
            if let Some((pid, ended)) = started {
                return Ok(Launched { ended, pid, pipes, terminal: None, starter: Some(zygote) });
            }
        }
        let (pid, ended) = spawn(entrance, &described, Way::Pipes(given), reaper).await?;
        return Ok(Launched { ended, pid, pipes, terminal: None, starter: None });
    };
    let (master, other) = entrance.terminal().context("the container has no terminal for it")?;
    let (pid, ended) = spawn(entrance, &described, Way::Terminal(other), reaper).await?;
    let terminal = Arc::new(Terminal::new(master, size)?);
    let pipes = Pipes::terminal(&terminal, request.interactive);
    Ok(Launched { ended, pid, pipes, terminal: Some(terminal), starter: None })
}

/// What a command has as its standard descriptors.
#[derive(Debug)]
enum Way {
    Pipes(Given),
    Terminal(OwnedFd),
}

/// Starts it from a thread of its own: the thread's children are the container's from then on, and the file system of
/// their programs may make them wait.
async fn spawn(
    entrance: Arc<Entrance>,
    process: &Process,
    way: Way,
    reaper: &Reaper,
) -> Result<Spawned, Refusal> {
    let program = process.args.first().map_or("", String::as_str);
    let words = process.words().with_context(|| format!("`{program}`: a 0 byte in a word or variable"))?;
    let mut command = Command::new(program);
    let (entry, report) = entrance.entry(process, matches!(way, Way::Terminal(_)))?;
    sys::enter(&mut command, entry, words);
    match way {
        Way::Pipes(given) => given.give_to(&mut command),
        Way::Terminal(end) => {
            command.stdin(end.try_clone()?).stdout(end.try_clone()?).stderr(end);
        }
    }
    let (sender, spawned) = oneshot::channel();
    let reaper = reaper.clone();
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
    let spawned = spawned.await.context("the command's thread ended")?;
    spawned.map_err(|error| refused(Some(report), &error, program, &process.cwd))
}

/// Why a command does not run.
fn refused(report: Option<Report>, error: &io::Error, program: &str, workdir: &str) -> Refusal {
    // Its first process has just ended.
    if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) {
        return absent();
    }
    let not_found = error.kind() == io::ErrorKind::NotFound;
    let kind = if not_found { FailureKind::NotFound } else { FailureKind::NotExecutable };
    match report.and_then(Report::failed) {
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
