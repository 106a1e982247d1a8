//! A process that an uplink needs, for as long as the VM lives.

use std::{
    io,
    process::{Command, Stdio},
};

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{network::NetworkError, output::sanitize, process::die_with_parent};

/// How much of what it says last is kept, in lines.
const LINES: usize = 8;
/// The longest line that is told.
const LONGEST: usize = 300;

/// The process. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    program: &'static str,
    child: tokio::process::Child,
    said: tokio::task::JoinHandle<Vec<String>>,
}

impl Process {
    /// Starts it; it dies with this thread.
    ///
    /// # Errors
    /// Where it is not installed.
    pub(super) fn start(program: &'static str, mut command: Command) -> Result<Self, NetworkError> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        // A terminal's Ctrl-C is for the container.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        die_with_parent(&mut command, Signal::KILL);
        tracing::debug!(target: "network", ?command, "starting");
        let mut child = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| NetworkError::Start { program, source })?;
        let said = child.stderr.take();
        let said = tokio::spawn(async move {
            let mut last = Vec::new();
            let Some(said) = said else { return last };
            let mut lines = BufReader::new(said).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                // What it would have liked to tell the host's log, where there is none.
                if line.starts_with("Failed to send ") {
                    continue;
                }
                let line: String = sanitize(&line).chars().take(LONGEST).collect();
                tracing::debug!(target: "network", program, line);
                if last.len() == LINES {
                    last.remove(0);
                }
                last.push(line);
            }
            last
        });
        Ok(Self { program, child, said })
    }

    /// Waits for what says that it works, which may never come where it ends before.
    ///
    /// # Errors
    /// Why it ended.
    pub(super) async fn until<T>(
        mut self,
        ready: impl Future<Output = io::Result<T>>,
    ) -> Result<(Self, T), NetworkError> {
        tokio::select! {
            // One that has ended may have said that it works before.
            biased;
            _ = self.child.wait() => Err(self.ended().await),
            ready = ready => match ready {
                Ok(ready) => Ok((self, ready)),
                Err(source) => Err(NetworkError::Start { program: self.program, source }),
            },
        }
    }

    /// Waits for its end, which is the end of the VM's network; why.
    pub(crate) async fn end(&mut self) -> NetworkError {
        self.child.wait().await.ok();
        self.ended().await
    }

    async fn ended(&mut self) -> NetworkError {
        let said = (&mut self.said).await.unwrap_or_default().join("; ");
        let said = if said.is_empty() { "it said nothing".to_owned() } else { said };
        NetworkError::Program { program: self.program, said }
    }

    /// Kills it, and waits for its end.
    pub(crate) async fn stop(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, program = self.program, "it had ended");
        }
    }
}
