//! A command that was started, and the pumps between its descriptors and the host's streams.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
};

use fcvm_link::Stream;
use fcvm_proto::{ExecRequest, FailureKind};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::Refusal;
use crate::{container::PidFile, descriptor::Descriptor, terminal::Terminal};

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;
/// Where commands have their files, a directory each.
const DIRECTORY: &str = "/run/fcvm/exec";

/// A command on its way.
#[derive(Debug)]
pub(super) struct Launched {
    /// Its end, or that of what runs it.
    pub(super) ended: oneshot::Receiver<ExitStatus>,
    /// Its process.
    pub(super) started: Started,
    pub(super) pipes: Pipes,
    pub(super) terminal: Option<Arc<Terminal>>,
    pub(super) place: Place,
}

/// How a command's process becomes known.
#[derive(Debug)]
pub(super) enum Started {
    /// By a file that names it.
    File(PidFile),
    /// It is.
    Known(rustix::process::Pid),
}

impl Started {
    pub(super) async fn appeared(&mut self) -> anyhow::Result<rustix::process::Pid> {
        match self {
            Self::File(file) => file.appeared().await,
            Self::Known(pid) => Ok(*pid),
        }
    }
}

/// Streams of the host for one command.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: oneshot::Receiver<Stream>,
    pub(super) stdout: oneshot::Receiver<Stream>,
    pub(super) stderr: oneshot::Receiver<Stream>,
}

/// Our ends of a command's descriptors.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<Arc<Descriptor>>,
    pub(super) stdout: Option<Arc<Descriptor>>,
    pub(super) stderr: Option<Arc<Descriptor>>,
}

impl Pipes {
    /// Pipes as the request wants them, their other ends given to the command.
    ///
    /// # Errors
    /// Where there are no more.
    pub(super) fn of(request: &ExecRequest, command: &mut Command) -> io::Result<Self> {
        let mut pipes = Self::default();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if request.interactive {
            let (read, write) = pipe()?;
            command.stdin(read);
            pipes.stdin = Some(Arc::new(Descriptor::new(write)?));
        }
        if !request.detach {
            let (read, write) = pipe()?;
            command.stdout(write);
            pipes.stdout = Some(Arc::new(Descriptor::new(read)?));
            let (read, write) = pipe()?;
            command.stderr(write);
            pipes.stderr = Some(Arc::new(Descriptor::new(read)?));
        }
        Ok(pipes)
    }

    /// A terminal in place of all of them.
    pub(super) fn terminal(terminal: &Terminal, interactive: bool) -> Self {
        let end = || Some(Arc::clone(terminal.end()));
        Self { stdin: if interactive { end() } else { None }, stdout: end(), stderr: None }
    }

    /// Moves bytes until the command has ended.
    pub(super) fn pump(self, streams: Streams) -> Pumps {
        let (over, ended) = watch::channel(false);
        let (left, leaving) = watch::channel(false);
        let mut outputs = JoinSet::new();
        for (from, stream) in [(self.stdout, streams.stdout), (self.stderr, streams.stderr)] {
            if let Some(from) = from {
                outputs.spawn(output(from, stream, ended.clone(), leaving.clone()));
            }
        }
        let mut inputs = JoinSet::new();
        if let Some(to) = self.stdin {
            inputs.spawn(input(streams.stdin, to));
        }
        Pumps { over, left, outputs, _inputs: inputs }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // Fewer, larger moves; without it all works the same.
    if let Err(error) = fcntl_setpipe_size(&write, CHUNK) {
        tracing::debug!(%error, "pipes keep their size");
    }
    Ok((read, write))
}

/// Pumps at work.
#[derive(Debug)]
pub(super) struct Pumps {
    over: watch::Sender<bool>,
    left: watch::Sender<bool>,
    outputs: JoinSet<()>,
    /// Ends with this.
    _inputs: JoinSet<()>,
}

impl Pumps {
    /// The host leaves: what the command still writes goes nowhere, in place of failing.
    pub(super) fn leave(&self) {
        self.left.send_replace(true);
    }

    /// Waits until all that a command that has ended had written is sent.
    pub(super) async fn finish(mut self) {
        self.over.send_replace(true);
        while self.outputs.join_next().await.is_some() {}
    }
}

/// Moves output to the host. Where the host does not want it, dropping our end makes the command's
/// next write fail, as in any pipeline.
async fn output(
    from: Arc<Descriptor>,
    stream: oneshot::Receiver<Stream>,
    mut ended: watch::Receiver<bool>,
    left: watch::Receiver<bool>,
) {
    let Ok(stream) = stream.await else { return };
    let mut stream = Some(stream);
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = tokio::select! {
            biased;
            read = from.read(&mut chunk) => read,
            // Something else may have the other end: what was there is all that is waited for.
            _ = ended.wait_for(|ended| *ended) => from.read_now(&mut chunk),
        };
        match read {
            Ok(read @ 1..) => {
                let Some(host) = &mut stream else { continue };
                let sent = match host.write_all(&chunk[..read]).await {
                    Ok(()) => host.flush().await,
                    failed => failed,
                };
                if let Err(error) = sent {
                    tracing::debug!(%error, "the host takes no more output");
                    if !*left.borrow() {
                        return;
                    }
                    stream = None;
                }
            }
            // A terminal whose other end is closed tells EIO.
            Ok(0) | Err(_) => break,
        }
    }
    if let Some(mut stream) = stream
        && let Err(error) = stream.shutdown().await
    {
        tracing::debug!(%error, "the end of the output was not delivered");
    }
}

/// Moves the host's input to the command until either ends.
async fn input(stream: oneshot::Receiver<Stream>, to: Arc<Descriptor>) {
    let Ok(mut stream) = stream.await else { return };
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        if let Err(error) = to.write_all(&chunk[..read]).await {
            return tracing::debug!(%error, "the command takes no more input");
        }
    }
}

/// A command's own directory, removed with this.
#[derive(Debug)]
pub(super) struct Place {
    directory: PathBuf,
}

impl Place {
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn new(request: &ExecRequest) -> io::Result<Self> {
        let name: String = request.id.iter().map(|byte| format!("{byte:02x}")).collect();
        let directory = Path::new(DIRECTORY).join(name);
        fs::create_dir_all(&directory)?;
        Ok(Self { directory })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The file that the OCI runtime writes its errors to.
    pub(super) fn log(&self) -> PathBuf {
        self.path("log")
    }

    /// What the OCI runtime had against the command.
    pub(super) fn failure(&self) -> Option<Refusal> {
        #[derive(serde::Deserialize)]
        struct Line {
            msg: String,
            level: String,
        }
        let text = fs::read_to_string(self.log()).ok()?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let message = lines.rfind(|line| line.level == "error")?.msg;
        let has = |words: &str| message.contains(words);
        let kind = match () {
            () if has("Permission denied") || has("Is a directory") || has("Exec format error") => {
                FailureKind::NotExecutable
            }
            () if has("not found") || has("No such file or directory") => FailureKind::NotFound,
            () => FailureKind::NotExecutable,
        };
        Some(Refusal { kind, message })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, "a command's files are left");
        }
    }
}
