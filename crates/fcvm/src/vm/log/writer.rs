//! Writing the log.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use jiff::Timestamp;
use rustix::fs::fstatvfs;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    MAX_TEXT, OLDER,
    record::{Record, Source, time_text},
};
use crate::state::LOG_FILE;

/// Bytes of the file system that the log leaves to others: to the VM's disk above all, for whose
/// guest a full file system is a broken disk.
const RESERVE: u64 = 64 << 20;

/// The log of a container, for both its outputs.
#[derive(Debug, Clone)]
pub(in crate::vm) struct Log {
    writer: Arc<Mutex<Writer>>,
}

impl Log {
    /// A new log in a VM's directory, of so many bytes at most. A file that cannot be made is
    /// tried again with the first output.
    pub(in crate::vm) fn create(directory: &Path, limit: u64) -> Self {
        let mut writer = Writer {
            path: directory.join(LOG_FILE),
            older: directory.join(OLDER),
            file: None,
            size: 0,
            limit: limit / 2,
            buffer: Vec::new(),
            buffered: 0,
            lost: 0,
        };
        if let Err(error) = writer.open() {
            tracing::debug!(%error, "there is no log yet");
        }
        Self { writer: Arc::new(Mutex::new(writer)) }
    }

    /// Adds what came from an output.
    pub(in crate::vm) fn append(&self, source: Source, bytes: &[u8]) {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).append(source, bytes);
    }
}

#[derive(Debug)]
struct Writer {
    path: PathBuf,
    older: PathBuf,
    file: Option<File>,
    /// Length of the file's whole records.
    size: u64,
    /// Longest file.
    limit: u64,
    /// Records on their way.
    buffer: Vec<u8>,
    /// The container's bytes in them.
    buffered: u64,
    /// The container's bytes that the disk did not take since it took some last.
    lost: u64,
}

impl Writer {
    fn append(&mut self, source: Source, bytes: &[u8]) {
        let time = time_text(Timestamp::now());
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, whole) = match line {
                [text @ .., b'\n'] => (text, true),
                text => (text, false),
            };
            while text.len() > MAX_TEXT {
                let (part, rest) = text.split_at(MAX_TEXT);
                self.add(&time, source, false, part);
                text = rest;
            }
            if whole || !text.is_empty() {
                self.add(&time, source, whole, text);
            }
        }
        self.flush();
    }

    fn add(&mut self, time: &str, source: Source, whole: bool, text: &[u8]) {
        let before = self.buffer.len();
        Record::encode(&mut self.buffer, time, source, whole, text);
        if self.size + self.buffer.len() as u64 > self.limit && self.size + before as u64 > 0 {
            let record = self.buffer.split_off(before);
            self.flush();
            if let Err(error) = self.rotate() {
                tracing::debug!(%error, "the log is not rotated");
            }
            self.buffer = record;
        }
        self.buffered += text.len() as u64 + u64::from(whole);
    }

    /// Writes the buffer, or counts what was in it as lost.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        if self.lost > 0 {
            let text = format!("fcvm: {} bytes of output are missing here: the disk was full", self.lost);
            Record::encode(&mut bytes, &time_text(Timestamp::now()), Source::Stderr, true, text.as_bytes());
        }
        bytes.append(&mut self.buffer);
        match self.write(&bytes) {
            Ok(()) => self.lost = 0,
            Err(error) => {
                tracing::debug!(%error, "output is missing in the log");
                self.lost += self.buffered;
            }
        }
        self.buffered = 0;
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &self.file else { return Err(io::ErrorKind::NotFound.into()) };
        // Where a file could not be rotated it is not made longer.
        if self.size + bytes.len() as u64 > self.limit + MAX_TEXT as u64 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let space = fstatvfs(file)?;
        if space.f_bavail * space.f_frsize < RESERVE + bytes.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = file.write_all_at(bytes, self.size);
        match &written {
            Ok(()) => self.size += bytes.len() as u64,
            // Half a record is none.
            Err(_) => file.set_len(self.size)?,
        }
        written
    }

    fn open(&mut self) -> io::Result<()> {
        self.file = Some(OpenOptions::new().write(true).create(true).truncate(true).open(&self.path)?);
        self.size = 0;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        std::fs::rename(&self.path, &self.older)?;
        self.file = None;
        self.open()
    }
}

/// A stream of the guest of which the log has everything that is read.
#[derive(Debug)]
pub(in crate::vm) struct Logged<R> {
    stream: R,
    log: Log,
    source: Source,
}

impl<R> Logged<R> {
    pub(in crate::vm) fn new(stream: R, log: Log, source: Source) -> Self {
        Self { stream, log, source }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Logged<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.log.append(self.source, &buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(directory: &Path, file: &str) -> Vec<(Source, bool, String)> {
        let bytes = fs::read(directory.join(file)).unwrap_or_default();
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"));
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let record = Record::parse(line).unwrap();
                (record.source, record.whole, String::from_utf8_lossy(record.text).into_owned())
            })
            .collect()
    }

    #[test]
    fn lines_and_parts_of_lines() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), 1 << 20);
        log.append(Source::Stdout, b"one\n\ntw");
        log.append(Source::Stderr, b"other\n");
        log.append(Source::Stdout, b"o\nend");
        log.append(Source::Stdout, b"");
        let long = "x".repeat(MAX_TEXT + 1);
        log.append(Source::Stderr, format!("{long}\n").as_bytes());
        let (out, err) = (Source::Stdout, Source::Stderr);
        let expected = [
            (out, true, "one"),
            (out, true, ""),
            (out, false, "tw"),
            (err, true, "other"),
            (out, true, "o"),
            (out, false, "end"),
            (err, false, &long[1..]),
            (err, true, "x"),
        ];
        let expected = expected.map(|(source, whole, text)| (source, whole, text.to_owned()));
        assert_eq!(read(directory.path(), "container.log"), expected);
    }

    #[test]
    fn two_files_hold_the_latest() {
        const LIMIT: u64 = 64 << 10;
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), LIMIT);
        let mut text = String::new();
        for line in 0..100_000 {
            text.push_str(&format!("line {line}\n"));
            if line % 1000 == 999 {
                log.append(Source::Stdout, text.as_bytes());
                text.clear();
            }
        }
        let length = |file: &str| fs::metadata(directory.path().join(file)).unwrap().len();
        assert!(length("container.log") <= LIMIT / 2 && length("container.log.1") <= LIMIT / 2);
        let mut lines = read(directory.path(), "container.log.1");
        lines.extend(read(directory.path(), "container.log"));
        assert!(lines.len() > 500, "{}", lines.len());
        for (line, at) in lines.iter().rev().zip((0..100_000).rev()) {
            assert_eq!(line.2, format!("line {at}"));
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    /// As on a full disk: nothing fails but the log, which says so when there is room again.
    #[test]
    fn a_full_disk_leaves_a_gap_that_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(directory.path(), 1 << 20);
        log.append(Source::Stdout, b"before\n");
        let full = File::options().write(true).open("/dev/full").unwrap();
        let file = log.writer.lock().unwrap().file.replace(full);
        log.append(Source::Stdout, b"lost\n");
        log.append(Source::Stderr, b"lost, too");
        log.writer.lock().unwrap().file = file;
        log.append(Source::Stdout, b"after\n");
        let texts: Vec<_> = read(directory.path(), "container.log").into_iter().map(|line| line.2).collect();
        assert_eq!(
            texts,
            ["before", "fcvm: 14 bytes of output are missing here: the disk was full", "after"]
        );
    }

    #[test]
    fn without_its_directory_nothing_fails() {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::create(&directory.path().join("none"), 1 << 20);
        log.append(Source::Stdout, b"lost\n");
        fs::create_dir(directory.path().join("none")).unwrap();
        log.append(Source::Stdout, b"kept\n");
        assert_eq!(read(&directory.path().join("none"), "container.log").len(), 2);
    }
}
