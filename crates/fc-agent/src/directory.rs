//! News of a directory's files.

use std::{io, os::fd::OwnedFd, path::Path};

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::io::unix::AsyncFd;

/// A directory that is watched.
#[derive(Debug)]
pub(crate) struct Directory {
    events: AsyncFd<OwnedFd>,
}

impl Directory {
    /// Watches from now on.
    ///
    /// # Errors
    /// Where there is no such directory.
    pub(crate) fn watch(path: &Path, flags: WatchFlags) -> io::Result<Self> {
        let events = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        add_watch(&events, path, flags)?;
        Ok(Self { events: crate::sys::watch(events)? })
    }

    /// Waits until something happened since the last time. What, is for the caller to look at.
    ///
    /// # Errors
    /// Where the runtime ends.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let mut ready = self.events.readable().await?;
        let mut events = [0; 4096];
        while rustix::io::read(ready.get_inner(), &mut events).is_ok_and(|read| read > 0) {}
        ready.clear_ready();
        Ok(())
    }
}
