//! A command that was started, and the pumps between its descriptors and the host's streams.

use std::{
    io,
    os::fd::OwnedFd,
    process::{Command, ExitStatus, Stdio},
    sync::Arc,
};

use fcvm_link::Stream;
use fcvm_proto::ExecRequest;
use rustix::{
    pipe::{PipeFlags, fcntl_setpipe_size, pipe_with},
    process::Pid,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::zygote::Zygote;
use crate::{descriptor::Descriptor, terminal::Terminal};

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;

/// A command on its way.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) ended: oneshot::Receiver<ExitStatus>,
    pub(super) pid: Pid,
    pub(super) pipes: Pipes,
    pub(super) terminal: Option<Arc<Terminal>>,
    /// What has started it, and stays until it has ended.
    pub(super) starter: Option<Zygote>,
}

/// Streams of the host for one command.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: oneshot::Receiver<Stream>,
    pub(super) stdout: oneshot::Receiver<Stream>,
    pub(super) stderr: oneshot::Receiver<Stream>,
}

/// What a command is given as its standard descriptors: nothing where there is none.
#[derive(Debug, Default)]
pub(super) struct Given {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

impl Given {
    pub(super) fn ends(&self) -> [Option<&OwnedFd>; 3] {
        [&self.stdin, &self.stdout, &self.stderr].map(Option::as_ref)
    }

    pub(super) fn give_to(self, command: &mut Command) {
        let end = |end: Option<OwnedFd>| end.map_or_else(Stdio::null, Stdio::from);
        command.stdin(end(self.stdin)).stdout(end(self.stdout)).stderr(end(self.stderr));
    }
}

/// Our ends of a command's descriptors.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<Arc<Descriptor>>,
    pub(super) stdout: Option<Arc<Descriptor>>,
    pub(super) stderr: Option<Arc<Descriptor>>,
}

impl Pipes {
    /// Pipes as the request wants them, and their other ends.
    ///
    /// # Errors
    /// Where there are no more.
    pub(super) fn of(request: &ExecRequest) -> io::Result<(Self, Given)> {
        let (mut pipes, mut given) = (Self::default(), Given::default());
        if request.interactive {
            let (read, write) = pipe()?;
            given.stdin = Some(read);
            pipes.stdin = Some(Arc::new(Descriptor::new(write)?));
        }
        if !request.detach {
            let (read, write) = pipe()?;
            given.stdout = Some(write);
            pipes.stdout = Some(Arc::new(Descriptor::new(read)?));
            let (read, write) = pipe()?;
            given.stderr = Some(write);
            pipes.stderr = Some(Arc::new(Descriptor::new(read)?));
        }
        Ok((pipes, given))
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
