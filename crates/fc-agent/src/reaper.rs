//! PID 1 reaps everyone: its own children and whoever lost a parent.

use std::{
    collections::HashMap,
    io,
    process::{Command, ExitStatus},
    sync::Arc,
};

use rustix::process::Pid;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Mutex, oneshot},
};

/// Starts processes and hands out their ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reaper {
    /// Held while a process is started, which may take as long as a file system does that holds its program.
    awaited: Arc<Mutex<HashMap<Pid, oneshot::Sender<ExitStatus>>>>,
}

impl Reaper {
    /// A reaper, at work in a task of its own.
    ///
    /// # Errors
    /// Where SIGCHLD cannot be listened to.
    pub(crate) fn start() -> io::Result<Self> {
        let reaper = Self::default();
        let mut children = signal(SignalKind::child())?;
        let awaited = Arc::clone(&reaper.awaited);
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                let mut awaited = awaited.lock().await;
                while let Some((pid, status)) = crate::sys::reap() {
                    if awaited.remove(&pid).is_some_and(|waiter| waiter.send(status).is_err()) {
                        tracing::debug!(?pid, "nobody waits for the process any more");
                    }
                }
            }
        });
        Ok(reaper)
    }

    /// Starts a process; its id, and the receiver of its status.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) async fn spawn(&self, command: &mut Command) -> io::Result<Spawned> {
        spawn(command, &mut *self.awaited.lock().await)
    }

    /// Awaits the end of a child of ours that somebody else starts; nothing where they do not.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) async fn adopt(
        &self,
        start: impl Future<Output = io::Result<Option<Pid>>>,
    ) -> io::Result<Option<Spawned>> {
        let mut awaited = self.awaited.lock().await;
        let Some(pid) = start.await? else { return Ok(None) };
        let (waiter, status) = oneshot::channel();
        awaited.insert(pid, waiter);
        Ok(Some((pid, status)))
    }

    /// The same as `spawn`, from a thread that may wait.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub(crate) fn spawn_blocking(&self, command: &mut Command) -> io::Result<Spawned> {
        spawn(command, &mut self.awaited.blocking_lock())
    }
}

/// A process, and its end.
pub(crate) type Spawned = (Pid, oneshot::Receiver<ExitStatus>);

/// Those who wait are held across the spawn, so that an early end finds its waiter.
fn spawn(
    command: &mut Command,
    awaited: &mut HashMap<Pid, oneshot::Sender<ExitStatus>>,
) -> io::Result<Spawned> {
    let child = command.spawn()?;
    let (waiter, status) = oneshot::channel();
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the kernel gave an impossible process id"))?;
    awaited.insert(pid, waiter);
    Ok((pid, status))
}
