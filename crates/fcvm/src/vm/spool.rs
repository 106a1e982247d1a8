//! Output on its way to a reader that may stop.
//!
//! A stream of the guest is appended to a nameless file; a thread copies from
//! there to the sink and punches holes behind itself. So a reader that stops
//! stops nothing else: not the container, not the other output. Beyond
//! [`MAX_LAG`], or on a full disk, the container's writes to this output wait,
//! and only they; nothing is lost.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    sync::{Notify, watch},
};

/// How far the reader may fall behind, in bytes of disk.
const MAX_LAG: u64 = 1 << 30;
/// Bytes moved at a time.
const CHUNK: usize = 128 << 10;
/// Bytes between two holes.
const PUNCH: u64 = 1 << 20;

/// One output on its way from a guest's stream to a sink.
#[derive(Debug)]
pub(super) struct Spool {
    shared: Arc<Shared>,
    done: watch::Receiver<Option<Done>>,
}

/// How the sink's side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// All was written.
    Flushed,
    /// The reader went away.
    Closed,
    /// Writing failed.
    Failed(Errno),
}

#[derive(Debug)]
struct Shared {
    file: File,
    state: Mutex<State>,
    /// Wakes the thread: there is more, or no more will come.
    filled: Condvar,
    /// Wakes the filling task: there is room.
    drained: Notify,
    first_byte: OnceLock<Instant>,
}

#[derive(Debug, Default)]
struct State {
    /// Where the thread reads next.
    at: u64,
    /// Where the task writes next.
    end: u64,
    /// A chunk that found no room on disk, handed over from hand to hand.
    direct: Option<Vec<u8>>,
    /// No more will come.
    ended: bool,
    /// Nobody reads any more.
    broken: bool,
    /// What comes goes nowhere.
    muted: bool,
}

impl State {
    fn is_empty(&self) -> bool {
        self.at == self.end && self.direct.is_none()
    }
}

impl Spool {
    /// A spool to `sink`, its file in `directory`.
    ///
    /// # Errors
    /// Where the file or the thread cannot be made.
    pub(super) fn new(directory: &Path, sink: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            file: tempfile::tempfile_in(directory)?,
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Notify::new(),
            first_byte: OnceLock::new(),
        });
        let (report, done) = watch::channel(None);
        let thread_shared = Arc::clone(&shared);
        thread::Builder::new().name("spool".into()).spawn(move || {
            let end = thread_shared.drain(&sink);
            let mut state = thread_shared.lock();
            state.broken = true;
            drop(state);
            thread_shared.drained.notify_one();
            report.send_replace(Some(end));
        })?;
        Ok(Self { shared, done })
    }

    /// Takes all of a stream. Ends with the stream, or when the sink is gone.
    pub(super) async fn fill(&self, mut stream: impl AsyncRead + Unpin) {
        let mut chunk = vec![0; CHUNK];
        loop {
            match stream.read(&mut chunk).await {
                Ok(read @ 1..) => {
                    self.shared.first_byte.get_or_init(Instant::now);
                    if !self.shared.append(&chunk[..read]).await {
                        return;
                    }
                }
                Ok(0) => return,
                Err(error) => return tracing::debug!(%error, "an output stream broke"),
            }
        }
    }

    /// The sink gets nothing any more, and nothing ends by that.
    pub(super) fn mute(&self) {
        self.shared.lock().muted = true;
    }

    /// No more will come.
    pub(super) fn end(&self) {
        self.shared.lock().ended = true;
        self.shared.filled.notify_one();
    }

    /// Waits until everything is written or cannot be.
    pub(super) async fn done(&self) -> Done {
        let mut done = self.done.clone();
        match done.wait_for(Option::is_some).await {
            Ok(end) => end.unwrap_or(Done::Flushed),
            // The thread reports before it ends.
            Err(_) => Done::Failed(Errno::IO),
        }
    }

    /// When the first byte came.
    pub(super) fn first_byte(&self) -> Option<Instant> {
        self.shared.first_byte.get().copied()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a chunk; `false` where the sink is gone.
    async fn append(&self, chunk: &[u8]) -> bool {
        let mut written = 0;
        loop {
            {
                let mut state = self.lock();
                if state.broken {
                    return false;
                }
                if state.is_empty() && state.end > 0 && self.file.set_len(0).is_ok() {
                    (state.at, state.end) = (0, 0);
                }
                if state.end - state.at < MAX_LAG && state.direct.is_none() {
                    match self.file.write_at(&chunk[written..], state.end) {
                        Ok(length) => {
                            state.end += length as u64;
                            written += length;
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        // Most likely a full disk: what comes now must not overtake what is there.
                        Err(error) if state.is_empty() => {
                            tracing::debug!(%error, "output is handed over without a file");
                            state.direct = Some(chunk[written..].to_vec());
                            written = chunk.len();
                        }
                        Err(_) => {}
                    }
                    self.filled.notify_one();
                }
                if written == chunk.len() {
                    return true;
                }
            }
            self.drained.notified().await;
        }
    }

    /// Copies to the sink until the end.
    fn drain(&self, sink: &OwnedFd) -> Done {
        let mut buffer = vec![0; CHUNK];
        let mut punched = 0;
        loop {
            let (at, end, direct, muted) = {
                let mut state = self.lock();
                while state.is_empty() && !state.ended {
                    state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                if state.is_empty() {
                    return Done::Flushed;
                }
                let direct = if state.at == state.end { state.direct.take() } else { None };
                (state.at, state.end, direct, state.muted)
            };
            let write = |bytes: &[u8]| if muted { Ok(()) } else { write_all(sink, bytes) };
            let moved = if let Some(direct) = direct {
                write(&direct)
            } else {
                let length = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
                match self.file.read_exact_at(&mut buffer[..length], at) {
                    Ok(()) => {
                        // The file may have begun anew since the last hole.
                        punched = punched.min(at);
                        let next = at + length as u64;
                        if next - punched >= PUNCH {
                            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                            if fallocate(&self.file, flags, punched, next - punched).is_ok() {
                                punched = next;
                            }
                        }
                        self.lock().at = next;
                        write(&buffer[..length])
                    }
                    Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
                }
            };
            self.drained.notify_one();
            match moved {
                Ok(()) => {}
                Err(Errno::PIPE) => return Done::Closed,
                Err(error) => return Done::Failed(error),
            }
        }
    }
}

/// Writes everything, also to a sink that someone made non-blocking.
fn write_all(sink: &OwnedFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(sink, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let sink = sink.as_fd();
                match poll(&mut [PollFd::from_borrowed_fd(sink, PollFlags::OUT)], None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use rustix::pipe::{PipeFlags, pipe_with};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 13 & 0xff).unwrap()).collect()
    }

    #[tokio::test]
    async fn a_reader_that_stops_holds_up_nothing_and_gets_everything() {
        let directory = tempfile::tempdir().unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let spool = Spool::new(directory.path(), write).unwrap();
        let sent = pattern(20 << 20);
        // Far more than a pipe holds, and nobody reads yet.
        spool.fill(&sent[..]).await;
        spool.end();
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            File::from(read).read_to_end(&mut received).unwrap();
            received
        });
        assert_eq!(spool.done().await, Done::Flushed);
        assert!(reader.join().unwrap() == sent);
        assert!(spool.first_byte().is_some());
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_ends_it() {
        let directory = tempfile::tempdir().unwrap();
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let spool = Spool::new(directory.path(), write).unwrap();
        drop(read);
        let (mut near, far) = tokio::io::duplex(1 << 10);
        let filling = spool.fill(far);
        let writing = async { while near.write_all(&[0; 1 << 10]).await.is_ok() {} };
        tokio::join!(filling, writing);
        assert_eq!(spool.done().await, Done::Closed);
    }

    /// With a file that can take nothing (as on a full disk) everything still arrives, in order.
    #[tokio::test]
    async fn without_room_on_disk_nothing_is_lost() {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut spool = Spool::new(&std::env::temp_dir(), write).unwrap();
        let (report, done) = watch::channel(None);
        let full = Arc::new(Shared {
            file: File::options().read(true).write(true).open("/dev/full").unwrap(),
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Notify::new(),
            first_byte: OnceLock::new(),
        });
        let (sink_read, sink) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let thread_shared = Arc::clone(&full);
        thread::spawn(move || report.send_replace(Some(thread_shared.drain(&sink))));
        spool.end();
        spool = Spool { shared: full, done };
        drop(read);
        let reader = thread::spawn(move || {
            let mut received = Vec::new();
            File::from(sink_read).read_to_end(&mut received).unwrap();
            received
        });
        let sent = pattern(1 << 20);
        spool.fill(&sent[..]).await;
        spool.end();
        assert_eq!(spool.done().await, Done::Flushed);
        assert!(reader.join().unwrap() == sent);
    }
}
