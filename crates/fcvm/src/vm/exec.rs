//! `fcvm exec`, the host's end: a command in a guest that runs, and its streams.
//!
//! The protocol is in [`fcvm_proto::exec`]; the owner of the VM only passes streams on. A thread per
//! output copies to ours, so that a reader that stops stops nothing else.

use std::{
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    thread,
};

use fcvm_link::channel::{ChannelError, Receiver, Sender};
use fcvm_proto::{ExecEvent, ExecOrder, ExecRequest, FailureKind, Port, exec::EXEC_ID_LEN};
use rustix::fd::OwnedFd;
use tokio::{
    io::AsyncWriteExt as _,
    net::UnixStream,
    sync::{mpsc, oneshot},
    task::JoinSet,
};

use super::{
    control::{Client, ControlError},
    detach_keys::DetachKeys,
    input::{self, End},
    run::random,
    signals::{Signals, Sizes},
};
use crate::{
    exit,
    output::{RawMode, sanitize},
    state::{Registry, VmState},
};

/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;

/// A command could not be run in a VM, or its end is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The VM's owner could not be reached.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The agent refused.
    #[error("{message}")]
    Refused {
        /// What kind of failure.
        kind: FailureKind,
        /// The agent's words, cleaned.
        message: String,
    },
    /// The VM ended, or its owner, before the command did.
    #[error("the VM ended before the command did")]
    Gone,
    /// The conversation broke.
    #[error("the connection to the guest broke")]
    Broken(#[source] ChannelError),
    /// The command's output could not be written.
    #[error("failed to write the command's output")]
    Output(#[source] io::Error),
    /// Something of this process failed.
    #[error("failed to {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The user interrupted twice.
    #[error("interrupted by signal {signal}")]
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
}

impl ExecError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Control(error) => error.hint(),
            Self::Refused { kind: FailureKind::NotRunning, .. } => {
                Some("--vm runs the command in the VM itself".into())
            }
            _ => None,
        }
    }

    /// The status that tells it, as Podman's does.
    #[must_use]
    pub fn status(&self) -> Option<u8> {
        match self {
            Self::Refused { kind: FailureKind::NotExecutable, .. } => Some(126),
            Self::Refused { kind: FailureKind::NotFound, .. } => Some(127),
            Self::Interrupted { signal } => u8::try_from(128 + signal).ok(),
            _ => None,
        }
    }
}

/// Random bytes for [`ExecRequest::id`].
///
/// # Errors
/// Where the kernel gives none.
pub fn exec_id() -> Result<[u8; EXEC_ID_LEN], ExecError> {
    random().map_err(|_| ExecError::Host { what: "get random bytes", source: io::ErrorKind::Other.into() })
}

/// Where a command's input comes from and its output goes.
#[derive(Debug)]
pub struct Ends {
    /// Its input, where it takes any.
    pub stdin: Option<OwnedFd>,
    /// Its output, or its terminal's.
    pub stdout: OwnedFd,
    /// Its error output.
    pub stderr: OwnedFd,
    /// By which keys in its input the user leaves it.
    pub detach_keys: Option<DetachKeys>,
}

impl Ends {
    /// Our own standard streams.
    ///
    /// # Errors
    /// Where there are no more descriptors.
    pub fn inherited(request: &ExecRequest) -> io::Result<Self> {
        Ok(Self {
            stdin: request.interactive.then(|| io::stdin().as_fd().try_clone_to_owned()).transpose()?,
            stdout: io::stdout().as_fd().try_clone_to_owned()?,
            stderr: io::stderr().as_fd().try_clone_to_owned()?,
            detach_keys: None,
        })
    }
}

/// Runs a command in a VM to its end; its status, or 0 where the user left it to itself. Where it has a
/// terminal and takes input, ours is in raw mode meanwhile.
///
/// # Errors
/// Where it cannot be run, or its end is not known.
pub async fn exec(
    vm: &VmState,
    registry: &Registry,
    request: &ExecRequest,
    ends: Ends,
) -> Result<u8, ExecError> {
    let Ends { mut stdin, stdout, stderr, mut detach_keys } = ends;
    let mut ours = Some((stdout, stderr));
    let host = |what| move |source| ExecError::Host { what, source };
    let mut signals = Signals::listen().map_err(host("listen to signals"))?;
    let mut sizes = Sizes::listen().map_err(host("listen to signals"))?;
    let open = async |port| Ok::<_, ExecError>(Client::connect(vm, registry).await?.stream(port).await?);

    // A VM that ended is no news about its owner once there is a command.
    let open_more = async |port| match open(port).await {
        Err(ExecError::Control(ControlError::Gone { .. } | ControlError::NotRunning { .. })) => {
            Err(ExecError::Gone)
        }
        opened => opened,
    };

    let (read, write) = open(Port::Exec).await?.into_split();
    let mut sender = Sender::<ExecRequest, _>::new(write);
    sender.send(request).await.map_err(ExecError::Broken)?;
    crate::failpoint::reach("exec-requested");
    let mut orders = sender.retype::<ExecOrder>();
    let mut tasks = JoinSet::new();
    let mut events = events(Receiver::new(read), &mut tasks);
    let mut inputs = JoinSet::new();
    let mut raw = None;
    let mut outputs = Vec::new();
    let mut interrupted = false;
    let status = loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Ok(ExecEvent::Accepted)) if !request.detach => {
                    if request.terminal.is_some() && request.interactive {
                        raw = RawMode::set().map_err(host("set up the terminal"))?;
                    }
                    let Some((our_stdout, our_stderr)) = ours.take() else { continue };
                    let attach = async |port, wanted| match wanted {
                        true => named(open_more(port).await?, request).await.map(Some),
                        false => Ok(None),
                    };
                    // At once: each is a conversation with the owner.
                    let (stdout, stderr, input) = tokio::try_join!(
                        attach(Port::ExecStdout, true),
                        attach(Port::ExecStderr, request.terminal.is_none()),
                        attach(Port::ExecStdin, stdin.is_some()),
                    )?;
                    for (stream, ours) in [(stdout, our_stdout), (stderr, our_stderr)] {
                        if let Some(stream) = stream {
                            outputs.push(copy(stream, ours)?);
                        }
                    }
                    if let (Some(input), Some(ours)) = (input, stdin.take()) {
                        let keys = detach_keys.take().filter(|_| raw.is_some());
                        inputs.spawn(input::copy(input, ours, keys));
                    }
                }
                Some(Ok(ExecEvent::Accepted)) => {}
                Some(Ok(ExecEvent::Started)) if request.detach => break 0,
                Some(Ok(ExecEvent::Started)) => crate::failpoint::reach("exec-started"),
                Some(Ok(ExecEvent::Ended(status))) => {
                    crate::failpoint::reach("exec-ended");
                    break status;
                }
                // What comes from now on is nobody's.
                Some(Ok(ExecEvent::Detached)) => return Ok(0),
                Some(Ok(ExecEvent::Failed(failure))) => {
                    let (kind, message) = (failure.kind, sanitize(&failure.message));
                    drop(raw);
                    let mut written = 0;
                    for output in outputs {
                        written += output.await.unwrap_or(Ok(0)).unwrap_or(0);
                    }
                    // The OCI runtime has told it on the command's error output.
                    return match (ExecError::Refused { kind, message }, written) {
                        (error, 0) => Err(error),
                        (error, _) => Ok(error.status().unwrap_or(exit::FAILED)),
                    };
                }
                Some(Err(error)) => return Err(ExecError::Broken(error)),
                None => return Err(ExecError::Gone),
            },
            Some(Ok(End::Detached)) = inputs.join_next() => {
                order(&mut orders, ExecOrder::Detach).await;
            }
            signal = signals.next() => {
                if Signals::ends(signal) && interrupted {
                    return Err(ExecError::Interrupted { signal });
                }
                interrupted |= Signals::ends(signal);
                order(&mut orders, ExecOrder::Signal(signal)).await;
            }
            size = sizes.next(), if request.terminal.is_some() => {
                order(&mut orders, ExecOrder::Resize(size)).await;
            }
        }
    };
    // All of it is on its way; a reader that does not read may be given up.
    for output in outputs {
        tokio::select! {
            copied = output => match copied {
                Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(ExecError::Output(error));
                }
                _ => {}
            },
            signal = signals.next() => return Err(ExecError::Interrupted { signal }),
        }
    }
    drop(raw);
    Ok(status)
}

/// Reads events in a task of its own: reading cannot be called off half way.
fn events(
    mut receiver: Receiver<ExecEvent, tokio::net::unix::OwnedReadHalf>,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<Result<ExecEvent, ChannelError>> {
    let (sender, events) = mpsc::channel(4);
    tasks.spawn(async move {
        while let Some(event) = receiver.receive().await.transpose() {
            let broken = event.is_err();
            if sender.send(event).await.is_err() || broken {
                return;
            }
        }
    });
    events
}

async fn order(orders: &mut Sender<ExecOrder, tokio::net::unix::OwnedWriteHalf>, order: ExecOrder) {
    if let Err(error) = orders.send(&order).await {
        tracing::debug!(%error, "the guest takes no more orders");
    }
}

/// A stream that says whose it is.
async fn named(mut stream: UnixStream, request: &ExecRequest) -> Result<UnixStream, ExecError> {
    stream.write_all(&request.id).await.map_err(|_| ExecError::Gone)?;
    Ok(stream)
}

/// Copies to one of our outputs until either ends; how many bytes. Where ours ends first, closing the stream makes
/// the command's next write fail.
fn copy(stream: UnixStream, target: OwnedFd) -> Result<oneshot::Receiver<io::Result<u64>>, ExecError> {
    let failed = |source| ExecError::Host { what: "prepare for the command's output", source };
    let mut stream = stream.into_std().map_err(failed)?;
    stream.set_nonblocking(false).map_err(failed)?;
    let mut target = std::fs::File::from(target);
    let (report, done) = oneshot::channel();
    let copying = move || {
        let mut chunk = vec![0; CHUNK];
        let mut written = 0;
        let copied = loop {
            match stream.read(&mut chunk) {
                Ok(0) => break Ok(written),
                Ok(read) => {
                    if let Err(error) = target.write_all(&chunk[..read]) {
                        break Err(error);
                    }
                    written += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The VM is gone; that is told by another.
                Err(_) => break Ok(written),
            }
        };
        drop(stream);
        drop(report.send(copied));
    };
    thread::Builder::new().name("output".into()).spawn(copying).map_err(failed)?;
    Ok(done)
}
