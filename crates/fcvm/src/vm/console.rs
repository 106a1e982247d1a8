//! The guest's serial console and the hypervisor's own messages: read all the
//! time, so that neither ever waits for us; kept in part, as both are untrusted.

use std::{
    collections::VecDeque,
    fs::File,
    io::Write as _,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{io::AsyncReadExt as _, net::unix::pipe, task::JoinHandle};
use tracing::Instrument as _;

use crate::output::sanitize;

/// Lines kept for an error.
const LAST_LINES: usize = 12;
/// Longest line kept, in bytes.
const MAX_LINE: usize = 512;
/// What a panicking kernel says first.
const PANIC: &str = "Kernel panic";
/// Largest log file, in bytes.
const MAX_FILE: usize = 4 << 20;

/// The last lines of a source of text, being read in the background.
#[derive(Debug)]
pub(super) struct Tail {
    kept: Arc<Mutex<Kept>>,
    reader: JoinHandle<()>,
}

/// Where the text comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    Console,
    Hypervisor,
    Volume,
}

#[derive(Debug)]
struct Kept {
    lines: VecDeque<String>,
    /// The line that is not yet at its end.
    open: Vec<u8>,
    /// What the kernel said when it panicked.
    panic: Option<String>,
    source: Source,
}

impl Tail {
    /// Reads `pipe` to its end; `file` gets the first 4 MiB.
    pub(super) fn read(pipe: OwnedFd, source: Source, file: Option<&Path>) -> std::io::Result<Self> {
        let mut pipe = pipe::Receiver::from_file(File::from(pipe))?;
        let mut file = file.map(fs_err::File::create).transpose()?.map(|file| (file, MAX_FILE));
        let kept = Kept { lines: VecDeque::new(), open: Vec::new(), panic: None, source };
        let kept = Arc::new(Mutex::new(kept));
        let shared = Arc::clone(&kept);
        let read = async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
                lock(&shared).take(&buffer[..read]);
                file = file.and_then(|(mut file, room)| {
                    let length = read.min(room);
                    // A full disk costs the log, not the VM.
                    file.write_all(&buffer[..length]).ok().map(|()| (file, room - length))
                });
            }
            lock(&shared).end_line();
        };
        Ok(Self { kept, reader: tokio::spawn(read.in_current_span()) })
    }

    /// Everything up to the end of the pipe: for when its writer is dead.
    pub(super) async fn end(&mut self) {
        if let Err(error) = (&mut self.reader).await {
            tracing::debug!(%error, "the reader of a log failed");
        }
    }

    /// The last lines, indented.
    pub(super) fn last_lines(&self) -> String {
        let kept = lock(&self.kept);
        let lines: Vec<_> = kept.lines.iter().map(|line| format!("  | {line}")).collect();
        if lines.is_empty() { "  | (nothing)".into() } else { lines.join("\n") }
    }

    /// The reason of a kernel panic, where there was one.
    pub(super) fn panic(&self) -> Option<String> {
        lock(&self.kept).panic.clone()
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                b'\n' => self.end_line(),
                b'\r' => {}
                _ if self.open.len() < MAX_LINE => self.open.push(byte),
                _ => {}
            }
        }
    }

    fn end_line(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let line = sanitize(&String::from_utf8_lossy(&self.open));
        self.open.clear();
        match self.source {
            Source::Console => tracing::debug!(target: "console", "{line}"),
            Source::Hypervisor => tracing::warn!(target: "hypervisor", "{line}"),
            Source::Volume => tracing::warn!(target: "volume", "{line}"),
        }
        // What comes after a panic are registers: the lines before it tell why.
        if self.panic.is_some() {
            return;
        }
        if let Some((_, reason)) = line.split_once(PANIC) {
            self.panic = Some(reason.trim_start_matches(" - not syncing: ").to_owned());
        }
        if self.lines.len() == LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    #[tokio::test]
    async fn keeps_the_last_lines_cleaned_and_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("console.log");
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let mut tail = Tail::read(read, Source::Console, Some(&log)).unwrap();
        let writer = std::thread::spawn(move || {
            let mut write = File::from(write);
            for number in 0..100 {
                write.write_all(format!("line {number}\r\n").as_bytes()).unwrap();
            }
            write.write_all(b"\x1b[2JKernel panic - not syncing: no init\n").unwrap();
            for number in 0..100 {
                write.write_all(format!("register {number}\n").as_bytes()).unwrap();
            }
            write.write_all(&vec![b'x'; 5 << 20]).unwrap();
        });
        tail.end().await;
        writer.join().unwrap();
        let lines = tail.last_lines();
        assert_eq!(tail.panic().as_deref(), Some("no init"));
        assert!(lines.contains("line 99\n  | \\u{1b}[2JKernel panic"), "{lines}");
        assert!(!lines.contains("line 80") && !lines.contains("register"), "{lines}");
        assert!(lines.len() < LAST_LINES * (MAX_LINE + 8));
        assert_eq!(std::fs::metadata(&log).unwrap().len(), MAX_FILE as u64);
    }
}
