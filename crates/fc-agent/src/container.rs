//! Runs the container: Podman, its streams, its signals, its status.
//!
//! ```text
//!  spawn podman --pid file--> started --pidfd--> ended --> podman's status
//!       |                        |                             |
//!       |   signals wait here    | signals are delivered       v
//!       +------ podman fails before the container runs --> outcome
//! ```
//! Output is pumped until both pipes are at their end, and only then the
//! outcome is told: a short container loses nothing.

use std::{
    fs::{self, File},
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
};

use anyhow::Context as _;
use fcvm_link::Stream;
use fcvm_proto::{Container, Stage, ToHost};
use rustix::{
    fs::inotify,
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, unix::AsyncFd},
    net::unix::pipe,
    sync::{Notify, mpsc},
};

use crate::{guest::clock, podman, reaper::Reaper};

/// Bytes moved at a time: as much as a pipe of ours holds.
const CHUNK: usize = 256 << 10;

/// Streams of the host, one after the other as it reconnects.
#[derive(Debug)]
pub(crate) struct Streams {
    pub(crate) stdin: mpsc::Receiver<Stream>,
    pub(crate) stdout: OutputStreams,
    pub(crate) stderr: OutputStreams,
}

/// Streams for one output, and the news that nobody reads it any more.
#[derive(Debug)]
pub(crate) struct OutputStreams {
    pub(crate) streams: mpsc::Receiver<Stream>,
    pub(crate) closed: Arc<Notify>,
}

/// Runs the container to its end; the status as Podman gives it.
///
/// # Errors
/// Where Podman cannot be run.
pub(crate) async fn run(
    name: &str,
    container: &Container,
    streams: Streams,
    mut signals: mpsc::Receiver<i32>,
    outbox: &mpsc::Sender<ToHost>,
    reaper: &Reaper,
) -> anyhow::Result<u8> {
    let mut started =
        PidFile::watch(Path::new(podman::PID_FILE)).context("failed to watch for the container")?;
    let (stdout, stdout_end) = output_pipe()?;
    let (stderr, stderr_end) = output_pipe()?;
    let mut command = Command::new(podman::PROGRAM);
    command.args(podman::run_arguments(name, container)).stdout(stdout_end).stderr(stderr_end);
    if container.interactive {
        let (stdin_end, stdin) = pipe_with(PipeFlags::CLOEXEC)?;
        command.stdin(stdin_end);
        tokio::spawn(feed(streams.stdin, pipe::Sender::from_file(File::from(stdin))?));
    } else {
        command.stdin(Stdio::null());
    }
    command.env_clear().env("PATH", podman::PATH).env("HOME", "/root");
    reach(outbox, Stage::Prepared).await;
    let mut ended = reaper.spawn(&mut command).context("failed to start podman")?;
    // Our copies of the pipes' ends would keep them open.
    drop(command);
    let stdout = tokio::spawn(output(stdout, streams.stdout));
    let stderr = tokio::spawn(output(stderr, streams.stderr));

    let mut process: Option<AsyncFd<OwnedFd>> = None;
    let mut running = true;
    let status = loop {
        tokio::select! {
            status = &mut ended => break status?,
            pid = started.appeared(), if process.is_none() && running => {
                reach(outbox, Stage::ContainerStarted).await;
                match pidfd_open(pid?, PidfdFlags::NONBLOCK) {
                    Ok(pidfd) => process = Some(crate::sys::watch(pidfd)?),
                    // It has already ended.
                    Err(_) => running = false,
                }
            }
            () = exited(process.as_ref()), if process.is_some() && running => {
                reach(outbox, Stage::ContainerEnded).await;
                running = false;
            }
            Some(signal) = signals.recv(), if process.is_some() && running => {
                if let Some(process) = &process
                    && let Err(error) = crate::sys::pidfd_signal(process.get_ref(), signal)
                {
                    tracing::debug!(signal, %error, "the container got no signal");
                }
            }
        }
    };
    // Whatever outlived the container must not keep its output open.
    if let Err(error) = crate::sys::kill_all() {
        tracing::debug!(%error, "no process is left");
    }
    stdout.await?;
    stderr.await?;
    Ok(code(status))
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
fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(u8::MAX)
}

fn output_pipe() -> anyhow::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Fewer, larger moves; without it all works the same.
    if let Err(error) = fcntl_setpipe_size(&write, CHUNK) {
        tracing::debug!(%error, "pipes keep their size");
    }
    Ok((pipe::Receiver::from_file(File::from(read))?, write))
}

/// Moves a pipe's bytes to the host while somebody reads them. Dropping the
/// pipe then makes the container's next write fail, as in any pipeline.
async fn output(pipe: pipe::Receiver, host: OutputStreams) {
    tokio::select! {
        () = drain(pipe, host.streams) => {}
        () = host.closed.notified() => {}
    }
}

/// Moves a pipe's bytes to the host's stream until the pipe ends. A stream that
/// broke is replaced by the next; a chunk that was cut then is sent again.
async fn drain(mut pipe: pipe::Receiver, mut streams: mpsc::Receiver<Stream>) {
    let mut chunk = vec![0; CHUNK];
    let Some(mut stream) = streams.recv().await else { return };
    loop {
        let read = match pipe.read(&mut chunk).await {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(%error, "the container's output cannot be read");
                0
            }
        };
        loop {
            let moved =
                if read == 0 { stream.shutdown().await } else { stream.write_all(&chunk[..read]).await };
            match moved {
                Ok(()) => break,
                Err(_) => match streams.recv().await {
                    Some(next) => stream = next,
                    None => return,
                },
            }
        }
        if read == 0 {
            return;
        }
    }
}

/// Moves the host's input to the container until either ends.
async fn feed(mut streams: mpsc::Receiver<Stream>, mut pipe: pipe::Sender) {
    let Some(mut stream) = streams.recv().await else { return };
    let mut chunk = vec![0; 64 << 10];
    loop {
        match stream.read(&mut chunk).await {
            Ok(read @ 1..) => {
                if let Err(error) = pipe.write_all(&chunk[..read]).await {
                    tracing::debug!(%error, "the container takes no more input");
                    return;
                }
            }
            Ok(0) | Err(_) => return,
        }
    }
}

/// Waits for the file in which Podman's monitor names the container's process.
struct PidFile {
    path: &'static Path,
    events: AsyncFd<OwnedFd>,
}

impl PidFile {
    fn watch(path: &'static Path) -> io::Result<Self> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let events = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let wanted = inotify::WatchFlags::CLOSE_WRITE | inotify::WatchFlags::MOVED_TO;
        inotify::add_watch(&events, directory, wanted)?;
        Ok(Self { path, events: crate::sys::watch(events)? })
    }

    /// Not lossy when cancelled: what counts is the file.
    async fn appeared(&mut self) -> anyhow::Result<Pid> {
        loop {
            if let Ok(text) = fs::read_to_string(self.path)
                && let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw)
            {
                return Ok(pid);
            }
            let mut ready = self.events.readable().await?;
            let mut events = [0; 4096];
            while rustix::io::read(ready.get_inner(), &mut events).is_ok_and(|read| read > 0) {}
            ready.clear_ready();
        }
    }
}
