//! More commands, in the container or beside it: `fcvm exec`. The protocol is in [`fcvm_proto::exec`].
//!
//! ```text
//!  request --> launched: a process of the container, or of the VM
//!                 |  pumps: input, output, error output; or one terminal
//!                 |  signals and sizes as they come
//!                 v
//!              ended --> what it wrote until then is sent --> status
//! ```
//! What a command leaves running does not keep its outputs open for the host: they are at their end
//! when the command has ended and all it had written has been sent.

mod container;
mod entrance;
mod launch;
mod machine;
mod process;
mod users;
mod zygote;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fcvm_link::{
    Stream,
    channel::{Receiver, Sender},
};
use fcvm_proto::{
    ExecEvent, ExecOrder, ExecRequest, ExecTarget, Failure, FailureKind, Port, exec::EXEC_ID_LEN,
};
use rustix::{
    fd::OwnedFd,
    process::{PidfdFlags, Signal, pidfd_open},
};
use tokio::{
    io::{AsyncReadExt as _, ReadHalf, WriteHalf, split, unix::AsyncFd},
    sync::{mpsc, oneshot, watch},
};

pub(crate) use container::Running;
pub(crate) use entrance::{Entry, RUNTIME};
use launch::{Launched, Streams};
pub(crate) use zygote::{Rehearsal, is_rehearsal};

use crate::{container::code, reaper::Reaper};

/// Commands at once; the host's limit on streams comes first.
const MOST: usize = 1024;

type Id = [u8; EXEC_ID_LEN];
type Orders = mpsc::Receiver<ExecOrder>;

/// A command cannot be run.
#[derive(Debug)]
struct Refusal {
    kind: FailureKind,
    message: String,
}

impl<E: Into<anyhow::Error>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self { kind: FailureKind::Other, message: format!("{:#}", error.into()) }
    }
}

/// Runs commands, and brings their streams to them.
#[derive(Debug, Clone)]
pub(crate) struct Execs {
    reaper: Reaper,
    running: watch::Receiver<Option<Running>>,
    expected: Arc<Mutex<HashMap<Id, Ends>>>,
}

/// Takes the streams of a command, each once.
#[derive(Debug)]
struct Ends {
    stdin: Option<oneshot::Sender<Stream>>,
    stdout: Option<oneshot::Sender<Stream>>,
    stderr: Option<oneshot::Sender<Stream>>,
}

impl Execs {
    pub(crate) fn new(reaper: Reaper, running: watch::Receiver<Option<Running>>) -> Self {
        Self { reaper, running, expected: Arc::default() }
    }

    /// Takes a stream of one of the exec ports.
    pub(crate) fn attach(&self, port: Port, mut stream: Stream) {
        let this = self.clone();
        tokio::spawn(async move {
            if port == Port::Exec {
                return this.serve(stream).await;
            }
            let mut id = [0; EXEC_ID_LEN];
            if stream.read_exact(&mut id).await.is_err() {
                return;
            }
            let mut expected = this.expected();
            let Some(ends) = expected.get_mut(&id) else {
                return tracing::debug!(?port, "no command has this id");
            };
            let end = match port {
                Port::ExecStdin => ends.stdin.take(),
                Port::ExecStdout => ends.stdout.take(),
                _ => ends.stderr.take(),
            };
            if end.is_none_or(|end| end.send(stream).is_err()) {
                tracing::debug!(?port, "the command has no use for the stream");
            }
        });
    }

    fn expected(&self) -> MutexGuard<'_, HashMap<Id, Ends>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(&self, stream: Stream) {
        let (read, write) = split(stream);
        let mut requests = Receiver::<ExecRequest, _>::new(read);
        let request = match requests.receive().await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(error) => return tracing::warn!(%error, "a command cannot be understood"),
        };
        let mut events = Sender::<ExecEvent, _>::new(write);
        let orders = orders(requests.retype());
        let outcome = match self.run(&request, orders, &mut events).await {
            Ok(status) => ExecEvent::Ended(status),
            Err(Refusal { kind, message }) => ExecEvent::Failed(Failure { kind, message }),
        };
        self.expected().remove(&request.id);
        if let Err(error) = events.send(&outcome).await {
            tracing::debug!(%error, "nobody hears how the command ended");
        }
    }

    /// Runs a command to its end; its status.
    async fn run(
        &self,
        request: &ExecRequest,
        orders: Orders,
        events: &mut Sender<ExecEvent, WriteHalf<Stream>>,
    ) -> Result<u8, Refusal> {
        if request.command.first().is_none_or(String::is_empty) {
            return Err(anyhow::anyhow!("there is no command").into());
        }
        let streams = self.expect(request)?;
        events.send(&ExecEvent::Accepted).await?;
        let launched = match request.target {
            ExecTarget::Container => container::launch(request, self.running.clone(), &self.reaper).await?,
            ExecTarget::Machine => machine::launch(request, &self.reaper).await?,
        };
        crate::fault::reach("exec");
        attend(request, launched, streams, orders, events).await
    }

    /// Makes known that streams will come.
    fn expect(&self, request: &ExecRequest) -> Result<Streams, Refusal> {
        let (stdin, stdin_end) = oneshot::channel();
        let (stdout, stdout_end) = oneshot::channel();
        let (stderr, stderr_end) = oneshot::channel();
        let mut expected = self.expected();
        if expected.len() >= MOST || expected.contains_key(&request.id) {
            return Err(anyhow::anyhow!("too many commands at once").into());
        }
        let ends = Ends {
            stdin: request.interactive.then_some(stdin),
            stdout: (!request.detach).then_some(stdout),
            stderr: (!request.detach && request.terminal.is_none()).then_some(stderr),
        };
        expected.insert(request.id, ends);
        Ok(Streams { stdin: stdin_end, stdout: stdout_end, stderr: stderr_end })
    }
}

/// Reads orders in a task of its own: reading cannot be called off half way.
fn orders(mut receiver: Receiver<ExecOrder, ReadHalf<Stream>>) -> Orders {
    let (sender, orders) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok(Some(order)) = receiver.receive().await {
            if sender.send(order).await.is_err() {
                return;
            }
        }
    });
    orders
}

/// Sees a command through to its end.
async fn attend(
    request: &ExecRequest,
    launched: Launched,
    streams: Streams,
    mut orders: Orders,
    events: &mut Sender<ExecEvent, WriteHalf<Stream>>,
) -> Result<u8, Refusal> {
    let Launched { mut ended, pid, pipes, terminal, starter: _starter } = launched;
    let pumps = pipes.pump(streams);
    // Where that fails it has already ended.
    let process = match pidfd_open(pid, PidfdFlags::NONBLOCK) {
        Ok(process) => Some(crate::sys::watch(process)?),
        Err(_) => None,
    };
    if let Err(error) = events.send(&ExecEvent::Started).await {
        tracing::debug!(%error, "nobody hears that the command runs");
    }
    let mut host = true;
    let mut left = request.detach;
    let status = loop {
        tokio::select! {
            status = &mut ended => break status?,
            order = orders.recv(), if host => {
                let signal = match order {
                    Some(ExecOrder::Signal(signal)) => signal,
                    Some(ExecOrder::Resize(size)) => {
                        if let Some(terminal) = &terminal {
                            terminal.resize(size);
                        }
                        continue;
                    }
                    Some(ExecOrder::Detach) => {
                        left = true;
                        pumps.leave();
                        if let Err(error) = events.send(&ExecEvent::Detached).await {
                            tracing::debug!(%error, "the host has left already");
                        }
                        continue;
                    }
                    None => {
                        host = false;
                        if left {
                            continue;
                        }
                        Signal::KILL.as_raw()
                    }
                };
                if let Some(process) = &process {
                    deliver(process, signal);
                }
            }
        }
    };
    pumps.finish().await;
    Ok(code(status))
}

fn deliver(process: &AsyncFd<OwnedFd>, signal: i32) {
    if let Err(error) = crate::sys::pidfd_signal(process.get_ref(), signal) {
        tracing::debug!(signal, %error, "the command got no signal");
    }
}
