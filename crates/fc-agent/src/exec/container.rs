//! Commands in the container, by the OCI runtime that runs it: without Podman, which takes ten times
//! as long and does the same.

use std::{
    fs,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::Context as _;
use fcvm_proto::{ExecRequest, FailureKind};
use rustix::{
    fs::{Mode, OFlags, inotify::WatchFlags, open},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
    process::Pid,
};
use serde_json::Value;
use tokio::{io::Interest, net::UnixListener, sync::watch};

use super::{
    Refusal,
    launch::{Launched, Pipes, Place, Started},
    process, users,
};
use crate::{container::PidFile, directory::Directory, podman, reaper::Reaper, terminal::Terminal};

/// The OCI runtime.
pub(crate) const RUNTIME: &str = "/usr/bin/crun";
/// Where it keeps what it knows of a container.
const RUNTIME_STATE: &str = "/run/crun";

/// What waits there, for the word to start the container's program.
const START: &str = "exec.fifo";

/// The container while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// Podman's id of it.
    pub(crate) id: String,
    /// Its first process.
    pub(crate) pid: Pid,
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
    let mut own = own_process(&running.id)?;
    let user = match &request.user {
        Some(wanted) => {
            let root = format!("/proc/{}/root", running.pid.as_raw_nonzero());
            let root = open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .context("failed to open the container's root")?;
            let uid = own["user"]["uid"].as_u64().unwrap_or(0);
            process::forget_home(&mut own, &users::look_up(&root, &uid.to_string())?.home);
            Some(users::look_up(&root, wanted)?)
        }
        None => None,
    };
    let described = process::describe(&own, request, user.as_ref())?;
    let place = Place::new(request)?;
    let described_in = place.path("process.json");
    fs::write(&described_in, described.to_string())?;
    let pid_file = place.path("pid");
    let started = PidFile::watch(pid_file.clone())?;
    let mut command = Command::new(RUNTIME);
    command
        .env_clear()
        .env("PATH", podman::PATH)
        .arg(format!("--log={}", place.log().display()))
        .args(["--log-format=json", "exec"])
        .arg(format!("--process={}", described_in.display()))
        .arg(format!("--pid-file={}", pid_file.display()));
    let (pipes, terminal, ended) = match request.terminal {
        Some(size) => {
            let socket = place.path("console");
            let listener = UnixListener::bind(&socket)?;
            command.arg(format!("--console-socket={}", socket.display())).arg(&running.id);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let (_, mut ended) = reaper.spawn(&mut command).context("failed to start crun")?;
            let master = tokio::select! {
                master = receive_terminal(&listener) => master?,
                status = &mut ended => {
                    return Err(place.failure().unwrap_or_else(|| match status {
                        Ok(status) => anyhow::anyhow!("crun ended: {status}").into(),
                        Err(error) => error.into(),
                    }));
                }
            };
            let terminal = Terminal::new(master, size)?;
            (Pipes::terminal(&terminal, request.interactive), Some(Arc::new(terminal)), ended)
        }
        None => {
            command.arg(&running.id);
            let pipes = Pipes::of(request, &mut command)?;
            let (_, ended) = reaper.spawn(&mut command).context("failed to start crun")?;
            (pipes, None, ended)
        }
    };
    Ok(Launched { ended, started: Started::File(started), pipes, terminal, place })
}

/// The container once its program has begun: the runtime makes it and starts it in two steps, and runs
/// no command before the second.
async fn begun(known: &mut watch::Receiver<Option<Running>>) -> Result<Running, Refusal> {
    let absent = || Refusal { kind: FailureKind::NotRunning, message: "the container does not run".into() };
    let running = known.borrow_and_update().clone().ok_or_else(absent)?;
    let directory = Path::new(RUNTIME_STATE).join(&running.id);
    let removed = Directory::watch(&directory, WatchFlags::DELETE)?;
    while directory.join(START).exists() {
        tokio::select! {
            changed = removed.changed() => changed?,
            changed = known.changed() => {
                changed?;
                if known.borrow_and_update().is_none() {
                    return Err(absent());
                }
            }
        }
    }
    Ok(running)
}

/// The process that the container was made for, as its OCI configuration has it.
fn own_process(id: &str) -> anyhow::Result<Value> {
    #[derive(serde::Deserialize)]
    struct Status {
        bundle: String,
    }
    #[derive(serde::Deserialize)]
    struct Config {
        process: Value,
    }
    let read = |path: &Path| fs::read(path).with_context(|| format!("failed to read `{}`", path.display()));
    let status: Status = serde_json::from_slice(&read(&Path::new(RUNTIME_STATE).join(id).join("status"))?)?;
    let config: Config = serde_json::from_slice(&read(&Path::new(&status.bundle).join("config.json"))?)?;
    Ok(config.process)
}

/// Takes the master end of the terminal that the runtime made in the container.
async fn receive_terminal(listener: &UnixListener) -> anyhow::Result<OwnedFd> {
    let (stream, _) = listener.accept().await?;
    stream
        .async_io(Interest::READABLE, || {
            let mut name = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            recvmsg(&stream, &mut [IoSliceMut::new(&mut name)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
            let mut descriptors = ancillary.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            });
            let received = descriptors.next().and_then(|mut descriptors| descriptors.next());
            received.ok_or_else(|| io::ErrorKind::InvalidData.into())
        })
        .await
        .context("crun gave no terminal")
}
