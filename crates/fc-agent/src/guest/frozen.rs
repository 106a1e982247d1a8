//! The scratch file system, while the host copies it.
//!
//! ```text
//!  flowing --Freeze--> frozen --Thaw, Restore, or LONGEST--> flowing
//! ```
//! Who writes while it is frozen waits. So that this ends whatever becomes of the host, a thread that writes nothing
//! itself freezes it and thaws it. It also is what takes its time over that, and not who goes on from a snapshot.

use std::{
    fs::File,
    io,
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::sys;

/// Where it is mounted, seen from the root that is on it as well.
const SCRATCH: &str = "/var/lib/containers";
/// A host that lives takes no longer.
const LONGEST: Duration = Duration::from_secs(60);

/// A file system that is being frozen, or is, or was. Dropped, it thaws.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// Its end, too, is the order to thaw it.
    thaw: Sender<()>,
    thread: JoinHandle<()>,
}

impl Frozen {
    /// Freezes it, which waits until all that was written is on the disk, and before until it has thawed from
    /// the last time; `then` all else comes to rest. `told` hears how that went.
    ///
    /// # Errors
    /// Where it cannot be begun.
    pub(crate) fn begin(
        last: Option<Self>,
        then: impl FnOnce() -> io::Result<()> + Send + 'static,
        told: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> io::Result<Self> {
        // Only its thread is left to wait for.
        let last = last.map(|Self { thread, .. }| thread);
        let file = File::open(SCRATCH)?;
        let (thaw, order) = channel();
        let thread = thread::Builder::new().name("freeze".into()).spawn(move || {
            if last.is_some_and(|last| last.join().is_err()) {
                tracing::debug!("the last thread that froze it panicked");
            }
            if let Err(error) = sys::freeze(&file) {
                return told(Err(error));
            }
            // Not before: who holds up the freezing may wait for what is at rest by then.
            let rested = then();
            let failed = rested.is_err();
            told(rested);
            // The host may not have waited for it: then that is there already.
            if !failed && order.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("nobody thaws the scratch disk");
            }
            if let Err(error) = sys::thaw(&file) {
                tracing::warn!(%error, "the scratch disk does not thaw");
            }
            // It stays until the next time: its end would be work as well, of a guest that has just gone on.
            while order.recv().is_ok() {}
        })?;
        Ok(Self { thaw, thread })
    }

    /// It may be changed again: now, or as soon as it is frozen.
    pub(crate) fn thaw(&self) {
        // A thread that failed has nothing to thaw.
        self.thaw.send(()).ok();
    }
}
