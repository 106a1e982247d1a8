//! From events to notifications: one thread, which sleeps until there is an event.

use std::{
    io,
    sync::{Arc, atomic::Ordering::SeqCst},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::FileType,
    io::{Errno, read, write},
};

use super::{
    Watcher,
    events::{Event, events},
    notifications::{Name, Notifications, Part},
};
use crate::passthrough::{Passthrough, nodes::Node};

/// Events are read in pieces of this many bytes, and notifications sent by.
const CHUNK: usize = 64 << 10;
/// How long a change may go unseen after another, in nanoseconds: 2 ms.
const REST: i64 = 2_000_000;
/// Events about names.
const NAMES: u64 = libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;

/// The right to read the events: one thread has it.
#[derive(Debug)]
pub(crate) struct Watching<'a> {
    files: &'a Passthrough,
    watcher: &'a Arc<Watcher>,
}

impl<'a> Watching<'a> {
    /// `None` where nothing is watched, or somebody else has it.
    pub(crate) fn begin(files: &'a Passthrough) -> Option<Self> {
        let watcher = files.watcher.as_ref().ok()?;
        // What it was told to do before is no matter.
        let mut count = [0; 8];
        (!watcher.running.swap(true, SeqCst)).then(|| {
            let _nothing: Result<usize, Errno> = read(&watcher.stop, &mut count);
            Self { files, watcher }
        })
    }

    /// Has [`run`](Self::run) end.
    pub(crate) fn stop(&self) {
        if let Err(errno) = write(&self.watcher.stop, &1_u64.to_ne_bytes()) {
            tracing::error!(%errno, "failed to stop watching");
        }
    }

    /// Tells what happens, until it is stopped or cannot tell any more.
    ///
    /// # Errors
    /// What `send` fails with, or where there are no events to be had: the client has to be left, for it
    /// would keep what is outdated.
    pub(crate) fn run(&self, mut send: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        let mut out = Notifications::default();
        let outdated = std::mem::take(&mut *self.watcher.outdated());
        self.anew(outdated, &mut out, &mut send)?;
        flush(&mut out, &mut send)?;
        loop {
            let length = match read(&self.watcher.group, &mut buffer) {
                Ok(length) => length,
                Err(Errno::AGAIN) => {
                    if self.wait()? {
                        continue;
                    }
                    return Ok(());
                }
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            for event in events(&buffer[..length]) {
                if event.mask & libc::FAN_Q_OVERFLOW != 0 {
                    tracing::warn!("more changed on the host than could be followed: the client looks anew");
                    self.everything(&mut out, &mut send)?;
                } else if event.pid != self.watcher.ours.as_raw_nonzero().get() {
                    self.tell(&event, &mut out);
                }
            }
            flush(&mut out, &mut send)?;
            self.rest()?;
        }
    }

    /// Events that come close together are read together: the kernel makes one of those that are alike, and
    /// what the client does itself does not wake anybody each time.
    fn rest(&self) -> io::Result<()> {
        let for_a_while = Timespec { tv_sec: 0, tv_nsec: REST };
        match poll(&mut [PollFd::new(&self.watcher.stop, PollFlags::IN)], Some(&for_a_while)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits for events; `false` at the end.
    fn wait(&self) -> io::Result<bool> {
        let mut both =
            [PollFd::new(&self.watcher.group, PollFlags::IN), PollFd::new(&self.watcher.stop, PollFlags::IN)];
        loop {
            match poll(&mut both, None) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => return Ok(both[1].revents().is_empty()),
            }
        }
    }

    /// What the client has to be told of one event.
    fn tell(&self, event: &Event<'_>, out: &mut Notifications) {
        let Some((directory, name)) = &event.entry else { return };
        let target = event.target.as_ref().and_then(|target| self.node(target));
        let Some(parent) = self.node(directory) else {
            // A file that is all there is.
            if let Some(root) = target.filter(|file| file.place().is_marked() && file.place().take()) {
                out.inode(root.place().number(), Part::All);
            }
            return;
        };
        // Whoever looks at the same time looks again, or is found in the notes. That has to be seen before
        // the file is looked for.
        parent.place().next_generation();
        let target = target.or_else(|| event.target.as_ref().and_then(|target| self.node(target)));
        if *name == b"." {
            if parent.place().take() {
                out.inode(parent.place().number(), Part::All);
            }
            return;
        }
        let names = event.mask & NAMES != 0;
        if names {
            if parent.place().take_name(name) {
                out.entry(parent.place().number(), name, Name::Changed);
            }
            if parent.place().take() {
                out.inode(parent.place().number(), Part::All);
            }
        }
        let Some(target) = target else { return };
        let place = target.place();
        if event.mask & (libc::FAN_DELETE | libc::FAN_MOVED_FROM) != 0 {
            // The next lookup knows better.
            place.cover(false);
        }
        if place.take() {
            // It may not have the file yet, but wait for a reply that tells of it.
            if !names && parent.place().has_name(name) {
                out.entry(parent.place().number(), name, Name::Expired);
            }
            let content = event.mask & (libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE) != 0;
            out.inode(place.number(), if content { Part::All } else { Part::Attributes });
        }
    }

    fn node(&self, handle: &super::FileHandle) -> Option<Arc<Node>> {
        self.files.nodes.get(self.watcher.number(handle)?).ok()
    }

    /// Has the client look at everything anew.
    fn everything(
        &self,
        out: &mut Notifications,
        send: &mut impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let all: Vec<u64> = self
            .watcher
            .known
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .values()
            .copied()
            .collect();
        self.anew(all, out, send)
    }

    /// The same at these nodes.
    fn anew(
        &self,
        numbers: Vec<u64>,
        out: &mut Notifications,
        send: &mut impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for node in numbers.into_iter().filter_map(|number| self.files.nodes.get(number).ok()) {
            let place = node.place();
            for name in place.names() {
                // Not more, for something may be mounted there.
                out.entry(place.number(), &name, Name::Expired);
            }
            if place.take() {
                out.inode(place.number(), Part::All);
            }
            // It may have been moved to where nobody watches.
            place.cover(node.kind() == FileType::Directory && place.is_marked());
            if out.bytes.len() >= CHUNK {
                flush(out, send)?;
            }
        }
        Ok(())
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.watcher.running.store(false, SeqCst);
    }
}

fn flush(out: &mut Notifications, send: &mut impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    if !out.bytes.is_empty() {
        send(&out.bytes)?;
        out.bytes.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;
    use crate::{
        abi::ROOT,
        passthrough::{Options, Watch},
    };

    fn watched(directory: &std::path::Path) -> Option<Passthrough> {
        let options = Options { watch: Watch::On, ..Options::default() };
        let files = Passthrough::new(directory, options).unwrap();
        files.client(super::super::LEAST_MINOR);
        if let Err(reason) = files.watched() {
            fcvm_testkit::skip(format!("nothing can be watched: {reason}"));
            return None;
        }
        Some(files)
    }

    /// What is told of what has happened so far.
    fn told(watching: &Watching<'_>) -> Vec<u8> {
        watching.stop();
        let mut frames = Vec::new();
        let kept = |bytes: &[u8]| {
            frames.extend_from_slice(bytes);
            Ok(())
        };
        watching.run(kept).unwrap();
        read(&watching.watcher.stop, &mut [0; 8]).unwrap();
        frames
    }

    fn expected(fill: impl FnOnce(&mut Notifications)) -> Vec<u8> {
        let mut out = Notifications::default();
        fill(&mut out);
        out.bytes
    }

    fn sh(directory: &std::path::Path, script: &str) {
        assert!(Command::new("sh").args(["-euc", script]).current_dir(directory).status().unwrap().success());
    }

    #[test]
    fn what_the_client_knows_is_told_once_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let Some(files) = watched(path) else { return };
        let watching = Watching::begin(&files).unwrap();
        assert!(Watching::begin(&files).is_none(), "one reads");
        fs::write(path.join("file"), "x").unwrap();
        let file = files.lookup(ROOT, c"file").unwrap();
        assert_eq!(file.entry_valid, 60);
        let none = files.lookup(ROOT, c"none").unwrap();
        assert_eq!((none.nodeid, none.entry_valid), (0, 60));
        assert_eq!(told(&watching), b"", "our own doing");
        sh(path, "echo a > other; echo b > other");
        assert_eq!(told(&watching), b"", "nobody has asked about it");
        sh(path, "echo a >> file; echo b >> file");
        let of_file = |out: &mut Notifications| {
            out.entry(ROOT, b"file", Name::Expired);
            out.inode(file.nodeid, Part::All);
        };
        // The client's kernel may not have heard of the file when it is told.
        assert_eq!(told(&watching), expected(of_file));
        sh(path, "echo c >> file");
        assert_eq!(told(&watching), expected(of_file));
        files.getattr(file.nodeid).unwrap();
        sh(path, "echo d >> file");
        assert_eq!(told(&watching), expected(of_file));
        sh(path, "echo e >> file");
        assert_eq!(told(&watching), b"", "it has been told");
        files.getattr(file.nodeid).unwrap();
        files.getattr(ROOT).unwrap();
        sh(path, "mv file none");
        let moved = expected(|out| {
            out.entry(ROOT, b"file", Name::Changed);
            out.inode(ROOT, Part::All);
            out.inode(file.nodeid, Part::Attributes);
            out.entry(ROOT, b"none", Name::Changed);
        });
        assert_eq!(told(&watching), moved);
        assert_eq!(files.getattr(file.nodeid).unwrap().attr_valid, 1, "until it is found again");
        assert_eq!(files.lookup(ROOT, c"none").unwrap().nodeid, file.nodeid);
        assert_eq!(files.getattr(file.nodeid).unwrap().attr_valid, 60);
        sh(path, "ln none second");
        assert_eq!(files.getattr(file.nodeid).unwrap().attr_valid, 1, "who knows where its other names are");
    }

    #[test]
    fn a_directory_is_watched_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        let Some(files) = watched(directory.path()) else { return };
        let watching = Watching::begin(&files).unwrap();
        let count = || watching.watcher.directories.load(SeqCst);
        let sub = files.lookup(ROOT, c"sub").unwrap().nodeid;
        assert_eq!(count(), 1, "the root");
        assert_eq!(files.lookup(sub, c"none").unwrap().nodeid, 0);
        assert_eq!((count(), watching.watcher.names.load(SeqCst)), (2, 2));
        files.forget(sub, 1);
        assert_eq!((count(), watching.watcher.names.load(SeqCst)), (1, 1));
        sh(directory.path(), "touch sub/none");
        assert_eq!(told(&watching), b"");
        files.reset();
        assert_eq!(watching.watcher.names.load(SeqCst), 0);
    }

    #[test]
    fn after_more_events_than_are_kept_everything_is_looked_at_anew() {
        let directory = tempfile::tempdir().unwrap();
        let Some(files) = watched(directory.path()) else { return };
        let watching = Watching::begin(&files).unwrap();
        let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
        assert_eq!(files.lookup(ROOT, c"none").unwrap().nodeid, 0);
        for number in 0..=limit.trim().parse::<u32>().unwrap() {
            fs::write(directory.path().join(format!("{number}")), "").unwrap();
        }
        assert_eq!(told(&watching), expected(|out| out.entry(ROOT, b"none", Name::Expired)));
    }
}
