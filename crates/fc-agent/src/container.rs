//! Runs the container: Podman, its streams, its signals, its status.
//!
//! ```text
//!  spawn podman --pid file--> started --pidfd--> ended --> podman's status
//!       |                        |                             |
//!       |   signals wait here    | signals are delivered       v
//!       +------ podman fails before the container runs --> outcome --restart--> podman start
//! ```
//! Output is pumped until both pipes are at their end, and only then the
//! outcome is told: a short container loses nothing. A restart is Podman's: the
//! same container with the files that it has written.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
};

use anyhow::Context as _;
use fcvm_link::Stream;
use fcvm_proto::{Container, Outcome, Stage, TerminalSize, ToHost};
use rustix::{
    fs::inotify::WatchFlags,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    descriptor::Descriptor,
    directory::Directory,
    exec::Running,
    guest::clock,
    input::Input,
    output::{OutputStreams, output},
    podman,
    prepared::{Gate, Purpose, WRAPPER, Waiting},
    reaper::Reaper,
    renamed,
    terminal::Terminal,
    volumes::Mounts,
};

/// Bytes that a pipe of ours holds.
const PIPE: usize = 256 << 10;

/// Streams of the host, one after the other as it reconnects, or as the container runs again.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: Input<Stream>,
    pub(crate) stdout: OutputStreams,
    pub(crate) stderr: OutputStreams,
}

/// What the host wants of the container while it runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wish {
    /// A signal for its first process.
    Signal(i32),
    /// Another size of its terminal.
    Resize(TerminalSize),
    /// Once more, after it has ended.
    Restart,
}

/// What a container is run with, again and again.
#[derive(Debug)]
pub(crate) struct Runs<'a> {
    pub(crate) name: &'a str,
    pub(crate) container: &'a Container,
    pub(crate) streams: Streams,
    pub(crate) wishes: mpsc::Receiver<Wish>,
    pub(crate) outbox: &'a mpsc::Sender<ToHost>,
    pub(crate) reaper: &'a Reaper,
    pub(crate) known: &'a watch::Sender<Option<Running>>,
    pub(crate) mounts: &'a Mounts,
    /// Where the container waits for what it is to run.
    pub(crate) gate: Option<Gate>,
}

impl Runs<'_> {
    /// Runs the container to its end, then again as often as the host wishes; tells each end.
    ///
    /// # Errors
    /// Where Podman cannot be run.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let runtime = self.gate.as_ref().map(|_| WRAPPER);
        let mut arguments = match self.container.exists {
            true => again(self.container, runtime)?,
            false => podman::run_arguments(self.name, self.container, runtime),
        };
        let mut size = self.container.terminal;
        loop {
            let status = run(&mut self, &arguments, &mut size).await?;
            self.mounts.settle().await;
            let outcome = ToHost::Ended(Outcome::Status(status));
            drop(self.outbox.send(outcome).await);
            // What was meant for the run that has ended is not for the next.
            loop {
                match self.wishes.recv().await {
                    Some(Wish::Restart) => break,
                    Some(Wish::Resize(changed)) => size = size.and(Some(changed)),
                    Some(Wish::Signal(_)) => {}
                    None => return Ok(()),
                }
            }
            arguments = again(self.container, runtime)?;
        }
    }
}

/// Arguments of Podman for the container that is there.
fn again(container: &Container, runtime: Option<&str>) -> anyhow::Result<Vec<String>> {
    let id = fs::read_to_string(podman::ID_FILE).context("no container is on the scratch disk")?;
    renamed::install().context("failed to write the container's name")?;
    Ok(podman::start_arguments(id.trim(), container, runtime))
}

/// Runs the container to its end; the status as Podman gives it.
async fn run(
    runs: &mut Runs<'_>,
    arguments: &[String],
    size: &mut Option<TerminalSize>,
) -> anyhow::Result<u8> {
    let Runs { container, outbox, reaper, known, .. } = *runs;
    let Runs { streams, wishes, gate, .. } = runs;
    // That of the run before.
    match fs::remove_file(podman::PID_FILE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    if let Some(gate) = &gate {
        gate.shut()?;
    }
    let mut started = PidFile::watch(podman::PID_FILE.into()).context("failed to watch for the container")?;
    let mut command = podman::command(arguments);
    let ends = Ends::given_to(&mut command, container.interactive, *size)?;
    reach(outbox, Stage::Prepared).await;
    let (podman, mut ended) = reaper.spawn(&mut command).await.context("failed to start podman")?;
    crate::fault::reach("podman");
    // Our copies of the pipes' ends would keep them open.
    drop(command);
    let mut outputs = JoinSet::new();
    outputs.spawn(output(ends.stdout, streams.stdout.clone()));
    if let Some(stderr) = ends.stderr {
        outputs.spawn(output(stderr, streams.stderr.clone()));
    }
    // Ends with this run.
    let mut inputs = JoinSet::new();
    if let Some(stdin) = ends.stdin {
        inputs.spawn(streams.stdin.clone().feed(stdin));
    }

    // What goes over a terminal goes through it.
    let watcher = ends.terminal.is_none().then_some(podman);
    let mut process: Option<AsyncFd<OwnedFd>> = None;
    let mut running = true;
    let mut waiting = None;
    let status = loop {
        tokio::select! {
            status = &mut ended => break status?,
            pid = started.appeared(), if process.is_none() && running => {
                let pid = pid?;
                let made = fs::read_to_string(podman::ID_FILE).ok().map(|id| Running::new(id, pid, watcher));
                if let Some(made) = &made {
                    tokio::select! {
                        status = &mut ended => break status?,
                        begun = made.begun() => begun.context("failed to watch for the container's start")?,
                    }
                }
                known.send_replace(made);
                crate::fault::reach("container");
                reach(outbox, Stage::ContainerStarted).await;
                match pidfd_open(pid, PidfdFlags::NONBLOCK) {
                    Ok(pidfd) => process = Some(crate::sys::watch(pidfd)?),
                    // It has already ended.
                    Err(_) => running = false,
                }
            }
            () = exited(process.as_ref()), if process.is_some() && running => {
                if let Some(ended) = known.send_replace(None) {
                    ended.relax();
                }
                reach(outbox, Stage::ContainerEnded).await;
                running = false;
            }
            runtime = asked(gate.as_ref()), if waiting.is_none() && process.is_none() => {
                waiting = Some(runtime?);
                reach(outbox, Stage::Waits).await;
            }
            purpose = purpose(gate.as_ref()), if waiting.is_some() => {
                let purpose = purpose?;
                if let (Some(terminal), Some(wanted)) = (&ends.terminal, purpose.program.terminal) {
                    terminal.resize(wanted);
                    *size = Some(wanted);
                }
                if let Some(runtime) = waiting.take() {
                    runtime.go(&purpose).await?;
                }
            }
            Some(wish) = wishes.recv(), if process.is_some() && running => match (wish, &process) {
                (Wish::Signal(signal), Some(process)) => {
                    if let Err(error) = crate::sys::pidfd_signal(process.get_ref(), signal) {
                        tracing::debug!(signal, %error, "the container got no signal");
                    }
                }
                (Wish::Resize(changed), _) => {
                    if let Some(terminal) = &ends.terminal {
                        terminal.resize(changed);
                        *size = Some(changed);
                    }
                }
                (Wish::Signal(_), None) | (Wish::Restart, _) => {}
            },
        }
    };
    crate::fault::reach("ended");
    // Whatever outlived the container must not keep its output open.
    if let Err(error) = crate::sys::kill_all() {
        tracing::debug!(%error, "no process is left");
    }
    while outputs.join_next().await.is_some() {}
    Ok(code(status))
}

/// A runtime that waits to make the container, where they do.
async fn asked(gate: Option<&Gate>) -> anyhow::Result<Waiting> {
    match gate {
        Some(gate) => gate.asked().await,
        None => std::future::pending().await,
    }
}

/// What it is to make.
async fn purpose(gate: Option<&Gate>) -> anyhow::Result<Purpose> {
    match gate {
        Some(gate) => gate.purpose().await,
        None => std::future::pending().await,
    }
}

async fn reach(outbox: &mpsc::Sender<ToHost>, stage: Stage) {
    // The receiver lives as long as the agent.
    drop(outbox.send(ToHost::Reached(stage, clock::since_boot())).await);
}

/// Waits for a pidfd's process to end.
async fn exited(process: Option<&AsyncFd<OwnedFd>>) {
    match process {
        Some(process) => drop(process.readable().await),
        None => std::future::pending().await,
    }
}

/// As a shell tells it.
pub(crate) fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Our ends of Podman's standard streams.
struct Ends {
    stdin: Option<Arc<Descriptor>>,
    stdout: Arc<Descriptor>,
    /// Not where there is a terminal.
    stderr: Option<Arc<Descriptor>>,
    terminal: Option<Terminal>,
}

impl Ends {
    /// Pipes, or one terminal, whose other ends the command gets.
    fn given_to(
        command: &mut Command,
        interactive: bool,
        terminal: Option<TerminalSize>,
    ) -> anyhow::Result<Self> {
        if let Some(size) = terminal {
            let (terminal, slave) = Terminal::open(size)?;
            command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
            // Podman takes a change of its terminal's size for the container's.
            crate::sys::lead_a_session_with_terminal(command);
            let end = terminal.end();
            let stdin = interactive.then(|| Arc::clone(end));
            return Ok(Self { stdin, stdout: Arc::clone(end), stderr: None, terminal: Some(terminal) });
        }
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        command.stdin(Stdio::null()).stdout(stdout_end).stderr(stderr_end);
        let mut stdin = None;
        if interactive {
            let (stdin_end, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            command.stdin(stdin_end);
            stdin = Some(Arc::new(Descriptor::new(ours)?));
        }
        Ok(Self { stdin, stdout, stderr: Some(stderr), terminal: None })
    }
}

fn output_pipe() -> anyhow::Result<(Arc<Descriptor>, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Fewer, larger moves; without it all works the same.
    if let Err(error) = fcntl_setpipe_size(&write, PIPE) {
        tracing::debug!(%error, "pipes keep their size");
    }
    Ok((Arc::new(Descriptor::new(read)?), write))
}

/// Waits for the file in which Podman's monitor, or the OCI runtime, names a process.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    directory: Directory,
}

impl PidFile {
    /// # Errors
    /// Where its directory cannot be made or watched.
    pub(crate) fn watch(path: PathBuf) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let directory = Directory::watch(directory, WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO)?;
        Ok(Self { path, directory })
    }

    /// Not lossy when cancelled: what counts is the file.
    ///
    /// # Errors
    /// Where the directory cannot be watched any more.
    pub(crate) async fn appeared(&mut self) -> anyhow::Result<Pid> {
        loop {
            if let Ok(text) = fs::read_to_string(&self.path)
                && let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw)
            {
                return Ok(pid);
            }
            self.directory.changed().await?;
        }
    }
}
