//! Reading the log while it is written and rotated.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{MAX_RECORD, OLDER};
use crate::state::LOG_FILE;

/// Bytes read at a time.
const CHUNK: usize = 128 << 10;
/// A log that is rotated faster than its files can be opened is read from where it is then.
const ATTEMPTS: usize = 16;

/// Gives the records' lines, oldest first, as far as they are written.
#[derive(Debug)]
pub(super) struct Reader {
    directory: PathBuf,
    /// `None` where there was no log yet.
    file: Option<Arc<File>>,
    buffer: Vec<u8>,
    /// Where in the buffer the next line begins.
    next: usize,
    /// Where in the file the buffer begins.
    at: u64,
}

/// A place in the log.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    file: Arc<File>,
    at: u64,
}

impl Reader {
    /// From the beginning.
    pub(super) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), file: None, buffer: Vec::new(), next: 0, at: 0 }
    }

    /// From a place on.
    pub(super) fn at(directory: &Path, mark: Mark) -> Self {
        Self { file: Some(mark.file), at: mark.at, ..Self::new(directory) }
    }

    /// The next line and its place; `None` where no more is written yet.
    pub(super) fn line(&mut self) -> io::Result<Option<(Mark, &[u8])>> {
        // First what is open, then what came after it, which it cannot grow beyond any more.
        let mut range = self.line_of_file()?;
        while range.is_none() {
            let Some(successor) = self.successor()? else { return Ok(None) };
            range = self.line_of_file()?;
            if range.is_none() {
                self.file = Some(Arc::new(successor));
                self.buffer.clear();
                (self.next, self.at) = (0, 0);
                range = self.line_of_file()?;
            }
        }
        let (Some((begin, end)), Some(file)) = (range, &self.file) else { return Ok(None) };
        let mark = Mark { file: Arc::clone(file), at: self.at + begin as u64 };
        Ok(Some((mark, &self.buffer[begin..end])))
    }

    fn line_of_file(&mut self) -> io::Result<Option<(usize, usize)>> {
        let Some(file) = &self.file else { return Ok(None) };
        let mut searched = self.next;
        loop {
            if let Some(length) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = (self.next, searched + length);
                self.next = searched + length + 1;
                return Ok(Some(line));
            }
            // Not ours: whatever it is, it takes no more memory.
            if self.buffer.len() - self.next > MAX_RECORD {
                self.next = self.buffer.len();
            }
            self.buffer.drain(..self.next);
            self.at += self.next as u64;
            self.next = 0;
            searched = self.buffer.len();
            self.buffer.resize(searched + CHUNK, 0);
            let read = file.read_at(&mut self.buffer[searched..], self.at + searched as u64);
            self.buffer.truncate(searched + read.as_ref().map_or(0, |read| *read));
            if read? == 0 {
                return Ok(None);
            }
        }
    }

    /// The file that follows the one being read, where it has been rotated or none is open.
    fn successor(&self) -> io::Result<Option<File>> {
        let (current, older) = (self.directory.join(LOG_FILE), self.directory.join(OLDER));
        for _ in 0..ATTEMPTS {
            let Some(newest) = open(&current)? else { return Ok(None) };
            let older = open(&older)?;
            // Only where the names did not move meanwhile.
            if !open(&current)?.is_some_and(|again| same(&again, &newest)) {
                continue;
            }
            let Some(ours) = &self.file else { return Ok(Some(older.unwrap_or(newest))) };
            if same(ours, &newest) {
                return Ok(None);
            }
            let older = older.filter(|older| !same(older, ours));
            return Ok(Some(older.unwrap_or(newest)));
        }
        Ok(None)
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn same(a: &File, b: &File) -> bool {
    let identity = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(a).is_some() && identity(a) == identity(b)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::vm::log::{LEAST_LIMIT, Log, Record, Source};

    fn texts(reader: &mut Reader) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some((_, line)) = reader.line().unwrap() {
            texts.push(String::from_utf8_lossy(Record::parse(line).unwrap().text).into_owned());
        }
        texts
    }

    #[test]
    fn a_reader_that_keeps_up_misses_nothing_across_rotations() {
        let directory = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(directory.path());
        assert!(reader.line().unwrap().is_none(), "there is no log yet");
        let log = Log::create(directory.path(), LEAST_LIMIT);
        let mut read = Vec::new();
        for line in 0..5000 {
            log.append(Source::Stdout, format!("line {line} {}\n", "x".repeat(line % 100)).as_bytes());
            if line % 100 == 0 {
                read.extend(texts(&mut reader));
            }
        }
        read.extend(texts(&mut reader));
        assert_eq!(read.len(), 5000);
        assert!(read.iter().enumerate().all(|(at, text)| text.starts_with(&format!("line {at} "))));
        // Another begins with the oldest that is there, and a mark is a place to go on from.
        let mut reader = Reader::new(directory.path());
        let (mark, _) = reader.line().unwrap().unwrap();
        let all = texts(&mut Reader::new(directory.path()));
        assert!(all.len() > 100 && read.ends_with(&all));
        assert_eq!(texts(&mut Reader::at(directory.path(), mark)), all);
    }

    #[test]
    fn half_a_line_is_none_yet_and_endless_ones_take_no_memory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LOG_FILE);
        let line = "2026-11-21T17:09:39Z stdout F text\n";
        fs::write(&path, &line[..20]).unwrap();
        let mut reader = Reader::new(directory.path());
        assert!(reader.line().unwrap().is_none());
        fs::write(&path, line).unwrap();
        assert_eq!(texts(&mut reader), ["text"]);
        fs::write(&path, vec![b'x'; 10 << 20]).unwrap();
        let mut reader = Reader::new(directory.path());
        assert!(reader.line().unwrap().is_none());
        assert!(reader.buffer.capacity() < 1 << 20);
    }
}
