//! Waiting for what becomes of a VM.

use std::{
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};

use super::{Registry, StateError, VmState};

/// Waits for changes in a directory and for the end of a VM's owner, without asking again and again.
#[derive(Debug)]
pub struct Watch {
    changes: OwnedFd,
    /// `None` where the owner has ended.
    owner: Option<OwnedFd>,
    path: PathBuf,
}

/// What a [`Watch`] saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Something changed in the directory.
    Changed,
    /// The owner has ended.
    Ended,
    /// Neither, in the time given.
    Nothing,
}

impl Registry {
    /// Watches the record of a VM.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn watch(&self, vm: &VmState) -> Result<Watch, StateError> {
        Watch::new(vm, self.states())
    }
}

impl Watch {
    /// Watches a directory, from now on.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(vm: &VmState, path: PathBuf) -> Result<Self, StateError> {
        let error = |source: Errno| StateError::Watch { path: path.clone(), source: source.into() };
        let changes = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(error)?;
        let wanted = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::DELETE;
        inotify::add_watch(&changes, &path, wanted).map_err(error)?;
        let owner = vm.owner.pidfd().map_err(|source| StateError::Watch { path: path.clone(), source })?;
        Ok(Self { changes, owner, path })
    }

    /// Waits for a change, the owner's end, or so long.
    ///
    /// # Errors
    /// Where waiting fails.
    pub fn wait(&self, longest: Option<Duration>) -> Result<Event, StateError> {
        let Some(owner) = &self.owner else { return Ok(Event::Ended) };
        let mut ends = [PollFd::new(owner, PollFlags::IN), PollFd::new(&self.changes, PollFlags::IN)];
        match wait(&mut ends, longest) {
            Err(source) => Err(StateError::Watch { path: self.path.clone(), source: source.into() }),
            Ok(0) => Ok(Event::Nothing),
            Ok(_) if !ends[0].revents().is_empty() => Ok(Event::Ended),
            Ok(_) => {
                let mut events = [0; 4096];
                while rustix::io::read(&self.changes, &mut events).is_ok_and(|read| read > 0) {}
                Ok(Event::Changed)
            }
        }
    }

    /// Waits for the owner's end, so long at most; whether it has ended.
    ///
    /// # Errors
    /// Where waiting fails.
    pub fn wait_for_end(&self, longest: Option<Duration>) -> Result<bool, StateError> {
        let Some(owner) = &self.owner else { return Ok(true) };
        match wait(&mut [PollFd::new(owner, PollFlags::IN)], longest) {
            Ok(ready) => Ok(ready > 0),
            Err(source) => Err(StateError::Watch { path: self.path.clone(), source: source.into() }),
        }
    }
}

fn wait(ends: &mut [PollFd<'_>], longest: Option<Duration>) -> Result<usize, Errno> {
    let deadline = longest.map(|longest| Instant::now() + longest);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec::try_from(left).map_err(|_| Errno::INVAL)).transpose()?;
        match poll(ends, left.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return ready,
        }
    }
}
