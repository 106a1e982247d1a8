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
    sync::mpsc::{RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use crate::sys;

/// Where it is mounted, seen from the root that is on it as well.
const SCRATCH: &str = "/var/lib/containers";
/// A host that lives takes no longer.
const LONGEST: Duration = Duration::from_secs(60);

/// A file system that is being frozen, or is. Dropped, it thaws.
#[derive(Debug)]
pub(crate) struct Frozen {
    file: File,
    /// Its end ends the thread.
    _thread: Sender<()>,
}

impl Frozen {
    /// Freezes it, which waits until all that was written is on the disk; `told` hears how that went.
    ///
    /// # Errors
    /// Where it cannot be begun.
    pub(crate) fn begin(told: impl FnOnce(io::Result<()>) + Send + 'static) -> io::Result<Self> {
        let file = File::open(SCRATCH)?;
        let (sender, stopped) = channel();
        let other = file.try_clone()?;
        thread::Builder::new().name("freeze".into()).spawn(move || {
            let frozen = sys::freeze(&other);
            let failed = frozen.is_err();
            told(frozen);
            if !failed && stopped.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                tracing::warn!("nobody thawed the scratch disk");
                // It may have been just now.
                sys::thaw(&other).ok();
            }
        })?;
        Ok(Self { file, _thread: sender })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = sys::thaw(&self.file) {
            tracing::debug!(%error, "the scratch disk was not frozen any more");
        }
    }
}
