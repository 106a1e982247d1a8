//! Firecracker's counters.
//!
//! Firecracker writes a line of JSON to a FIFO each minute and when asked to, without waiting for a reader;
//! its counters begin anew with each line. The machine's owner reads the lines and keeps the sums in a file,
//! from which other processes of fcvm have them. See `src/vmm/src/logger/metrics.rs` of Firecracker.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    net::unix::pipe,
    time::timeout,
};

use super::{
    api::{Action, ApiError, Client},
    places::RUN,
    process::{API_SOCKET, fifo},
};
use crate::{hypervisor::Traffic, storage::AtomicFile};

/// Among the machine's sockets.
pub(super) const FIFO: &str = "metrics.fifo";
/// The sums, in the machine's runtime directory: where Firecracker does not write.
const SUMS: &str = "traffic.json";
/// More than a line has: 10 KiB, and some for each device.
const LONGEST: u64 = 256 << 10;
/// Firecracker answers in a millisecond, unless a snapshot is being made.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is read of a line; all else may change with the version.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    block: Block,
}

/// Of all disks.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Block {
    rate_limiter_throttled_events: u64,
}

impl Traffic {
    fn add(&mut self, line: &Line) {
        self.disk_throttled = self.disk_throttled.saturating_add(line.block.rate_limiter_throttled_events);
    }
}

/// The reader of a machine's counters.
#[derive(Debug)]
pub(super) struct Collector {
    reader: OwnedFd,
    sums: PathBuf,
}

/// What is kept of them, in a file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Sums {
    traffic: Traffic,
}

impl Collector {
    /// Makes the FIFO.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn new(runtime_dir: &Path) -> io::Result<Self> {
        let reader = fifo(&runtime_dir.join(RUN).join(FIFO))?.read;
        Ok(Self { reader, sums: runtime_dir.join(SUMS) })
    }

    /// Reads in the background, from when Firecracker has opened the FIFO until its end.
    ///
    /// # Errors
    /// Where the FIFO cannot be watched.
    pub(super) fn start(self) -> io::Result<()> {
        let reader = BufReader::new(pipe::Receiver::from_owned_fd(self.reader)?);
        tokio::spawn(async move {
            if let Err(error) = collect(reader, &self.sums).await {
                tracing::debug!(target: "firecracker", %error, "its counters are not read");
            }
        });
        Ok(())
    }
}

async fn collect(mut reader: impl AsyncBufRead + Unpin, sums: &Path) -> io::Result<()> {
    let mut kept = Sums::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reader).take(LONGEST).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        // What did not fit into the FIFO is lost, in the middle of a line too.
        match serde_json::from_slice(&line) {
            Ok(line) => kept.traffic.add(&line),
            Err(error) => tracing::debug!(target: "firecracker", %error, "a line of counters is lost"),
        }
        AtomicFile::write_volatile(sums, &serde_json::to_vec(&kept)?)?;
    }
}

/// What the machine with this runtime directory has moved until now.
pub(in crate::hypervisor) async fn traffic(runtime_dir: &Path) -> Option<Traffic> {
    match timeout(PATIENCE, flush(runtime_dir)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(target: "firecracker", %error, "counters as they last were"),
        Err(_) => tracing::debug!(target: "firecracker", "counters as they last were: it does not answer"),
    }
    let bytes = std::fs::read(runtime_dir.join(SUMS)).ok()?;
    serde_json::from_slice::<Sums>(&bytes).ok().map(|sums| sums.traffic)
}

/// Has the machine write its counters, and waits until its owner has read them.
async fn flush(runtime_dir: &Path) -> Result<(), FlushError> {
    let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(io::Error::from)?;
    inotify::add_watch(&changes, runtime_dir, WatchFlags::MOVED_TO).map_err(io::Error::from)?;
    let changes = crate::process::watch(changes)?;
    let client = Client::connect(&runtime_dir.join(RUN).join(API_SOCKET)).await?;
    client.put_action(Action::FlushMetrics).await?;
    changes.readable().await?.clear_ready();
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum FlushError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Watch(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_added_up_and_what_is_no_line_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let sums = directory.path().join(SUMS);
        let line = r#"{"utc_timestamp_ms":1,"net":{"rx_bytes_count":5},"block":{"rate_limiter_throttled_events":2},"new":{}}"#;
        let text = format!("{line}\n{{\"net\":{{\"rx_by\n{line}\n{{}}\n");
        collect(text.as_bytes(), &sums).await.unwrap();
        let expected = Traffic { disk_throttled: 4 };
        assert_eq!(traffic(directory.path()).await, Some(expected), "also where nobody flushes");
    }

    #[tokio::test]
    async fn a_line_without_end_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let noise = vec![b'x'; 3 * usize::try_from(LONGEST).unwrap()];
        collect(&noise[..], &directory.path().join(SUMS)).await.unwrap();
        assert_eq!(traffic(directory.path()).await, Some(Traffic::default()));
        assert_eq!(traffic(Path::new("/nonexistent")).await, None);
    }
}
