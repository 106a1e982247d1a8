//! The scratch file system, while the host copies it.
//!
//! ```text
//!  flowing --Freeze--> frozen --Thaw, Restore, or LONGEST--> flowing
//! ```
//! Who writes while it is frozen waits. So that this ends whatever becomes of the host, a thread thaws it
//! in the end that writes nothing itself.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::sys;

/// Where it is mounted, seen from the root that is on it as well.
const SCRATCH: &str = "/var/lib/containers";
/// A host that lives takes no longer.
const LONGEST: Duration = Duration::from_secs(60);

/// How far it is. Only one of those who know of it thaws it, and never what another has frozen since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Freezing,
    Frozen,
    /// Or to be thawed as soon as it is frozen.
    Thawed,
}

/// A file system that is being frozen, or is. Dropped, it thaws.
#[derive(Debug)]
pub(crate) struct Frozen {
    file: File,
    stage: Arc<Mutex<Stage>>,
    /// Its end ends the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Frozen {
    /// Freezes it, which waits until all that was written is on the disk, and before until it has thawed from
    /// the last time; `told` hears how that went.
    ///
    /// # Errors
    /// Where it cannot be begun.
    pub(crate) fn begin(
        last: Option<Self>,
        told: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<Self> {
        let last = last.and_then(|mut last| {
            last.thaw();
            last.thread.take()
        });
        let file = File::open(SCRATCH)?;
        let (sender, stopped) = channel();
        let other = file.try_clone()?;
        let stage = Arc::new(Mutex::new(Stage::Freezing));
        let shared = Arc::clone(&stage);
        let thread = thread::Builder::new().name("freeze".into()).spawn(move || {
            // One that is late still freezes it, and then thaws it.
            if last.is_some_and(|last| last.join().is_err()) {
                tracing::debug!("the last thread that froze it panicked");
            }
            let frozen = sys::freeze(&other);
            let failed = frozen.is_err();
            if !failed {
                let mut stage = lock(&shared);
                match *stage {
                    Stage::Freezing => *stage = Stage::Frozen,
                    // The host did not wait for it.
                    Stage::Frozen | Stage::Thawed => thaw(&other),
                }
            }
            told(frozen);
            if !failed && stopped.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("nobody thaws the scratch disk");
                end(&shared, &other);
            }
        })?;
        Ok(Self { file, stage, stop: Some(sender), thread: Some(thread) })
    }

    /// It may be changed again: now, or as soon as it is frozen.
    pub(crate) fn thaw(&mut self) {
        end(&self.stage, &self.file);
        self.stop = None;
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.thaw();
    }
}

fn lock(stage: &Mutex<Stage>) -> MutexGuard<'_, Stage> {
    stage.lock().unwrap_or_else(PoisonError::into_inner)
}

fn end(stage: &Mutex<Stage>, file: &File) {
    let mut stage = lock(stage);
    if *stage == Stage::Frozen {
        thaw(file);
    }
    *stage = Stage::Thawed;
}

fn thaw(file: &File) {
    if let Err(error) = sys::thaw(file) {
        tracing::warn!(%error, "the scratch disk does not thaw");
    }
}
