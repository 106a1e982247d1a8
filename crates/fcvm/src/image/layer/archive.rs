//! Reads tar archives entry by entry.

use std::io::{self, BufReader, Read};

use super::{
    LayerError, TarError,
    header::{BLOCK, Header},
    pax::{Pax, decimal},
    sparse::Map,
};
use crate::storage::ext4::{Metadata, Segment, Special, Timestamp};

/// Long names and PAX headers are kept in memory; this is what other readers allow too.
const MAX_EXTENDED: u64 = 1 << 20;

/// A stream of entries.
pub(super) struct Archive<R> {
    reader: BufReader<R>,
    /// Bytes read so far.
    offset: u64,
    /// Where the last header was.
    header: u64,
    /// Bytes of the current entry's data, and of its padding, that were not read yet.
    data: u64,
    padding: u64,
    global: Pax,
    /// Bytes of global headers, which are kept as well.
    global_size: u64,
}

/// An entry, its extended headers taken into account.
#[derive(Debug)]
pub(super) struct Entry {
    /// As the archive has it.
    pub(super) path: Vec<u8>,
    pub(super) metadata: Metadata,
    pub(super) kind: EntryKind,
}

#[derive(Debug)]
pub(super) enum EntryKind {
    File { size: u64, segments: Vec<Segment> },
    Directory,
    Symlink(Vec<u8>),
    Hardlink(Vec<u8>),
    Special(Special),
}

impl<R: Read> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        let reader = BufReader::with_capacity(1 << 16, reader);
        Self { reader, offset: 0, header: 0, data: 0, padding: 0, global: Pax::default(), global_size: 0 }
    }

    /// The next entry; nothing at the end. What is left of the last one's data is skipped.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut pax: Option<Pax> = None;
        let (mut long_path, mut long_target) = (None, None);
        loop {
            self.skip_rest()?;
            self.header = self.offset;
            let Some(bytes) = self.block_or_end()? else { return Ok(None) };
            let Some(header) = Header::parse(bytes).map_err(|source| self.bad(source))? else {
                return Ok(None);
            };
            match header.kind() {
                b'x' => {
                    let records = self.extended(&header)?;
                    pax.get_or_insert_with(|| self.global.clone())
                        .add(&records)
                        .map_err(|source| self.bad(source))?;
                }
                b'g' => {
                    let records = self.extended(&header)?;
                    self.global_size += records.len() as u64;
                    if self.global_size > MAX_EXTENDED {
                        let size = self.global_size;
                        return Err(self.bad(TarError::ExtendedTooLarge { size, limit: MAX_EXTENDED }));
                    }
                    let mut global = std::mem::take(&mut self.global);
                    global.add(&records).map_err(|source| self.bad(source))?;
                    self.global = global;
                }
                b'L' => long_path = Some(until_zero(self.extended(&header)?)),
                b'K' => long_target = Some(until_zero(self.extended(&header)?)),
                // A volume's label.
                b'V' => self.expect_data(header.size().map_err(|source| self.bad(source))?),
                _ => {
                    let mut pax = pax.unwrap_or_else(|| self.global.clone());
                    pax.path = pax.path.or(long_path);
                    pax.link_target = pax.link_target.or(long_target);
                    return self.entry(&header, pax).map(Some);
                }
            }
        }
    }

    /// The current entry's data.
    pub(super) fn content(&mut self) -> impl Read {
        Content { archive: self }
    }

    fn entry(&mut self, header: &Header, mut pax: Pax) -> Result<Entry, LayerError> {
        let parse = || -> Result<_, TarError> {
            let mtime = match pax.mtime {
                Some(mtime) => mtime,
                None => Timestamp { seconds: header.mtime()?, nanoseconds: 0 },
            };
            let metadata = Metadata {
                mode: header.mode()?,
                uid: pax.uid.map_or_else(|| header.uid(), Ok)?,
                gid: pax.gid.map_or_else(|| header.gid(), Ok)?,
                mtime,
                xattrs: Vec::new(),
            };
            Ok(metadata)
        };
        let mut metadata = parse().map_err(|source| self.bad(source))?;
        let path = pax.path.take().unwrap_or_else(|| header.path());
        let target = pax.link_target.take();
        let target = || target.unwrap_or_else(|| header.link_target());
        let kind = match header.kind() {
            0 if path.ends_with(b"/") => EntryKind::Directory,
            0 | b'0' | b'7' | b'S' => self.file(header, &mut pax)?,
            b'1' => EntryKind::Hardlink(target()),
            b'2' => EntryKind::Symlink(target()),
            b'3' | b'4' => {
                let (major, minor) = header.device().map_err(|source| self.bad(source))?;
                if major > 0xfff || minor > 0xf_ffff {
                    return Err(self.bad(TarError::Number { field: "devmajor" }));
                }
                EntryKind::Special(match header.kind() {
                    b'3' => Special::CharDevice { major, minor },
                    _ => Special::BlockDevice { major, minor },
                })
            }
            b'5' => EntryKind::Directory,
            b'6' => EntryKind::Special(Special::Fifo),
            other => {
                return Err(self.bad(TarError::Kind { kind: [other].escape_ascii().to_string() }));
            }
        };
        metadata.xattrs = pax.xattrs();
        Ok(Entry { path, metadata, kind })
    }

    /// A regular file. Only these have data; where another entry names a size, it means nothing.
    fn file(&mut self, header: &Header, pax: &mut Pax) -> Result<EntryKind, LayerError> {
        let stored = pax.size.map_or_else(|| header.size(), Ok).map_err(|source| self.bad(source))?;
        let (size, segments) = match pax.sparse.take() {
            _ if header.kind() == b'S' => {
                let map = self.gnu_map(header)?;
                self.expect_data(stored);
                (header.sparse_size().map_err(|source| self.bad(source))?, map.segments)
            }
            Some(sparse) => {
                self.expect_data(stored);
                let size = sparse.size.ok_or_else(|| self.bad(TarError::Sparse))?;
                let segments = if sparse.map_in_data { self.leading_map()?.segments } else { sparse.map };
                (size, segments)
            }
            None => {
                self.expect_data(stored);
                let whole = vec![Segment { offset: 0, length: stored }];
                return Ok(EntryKind::File { size: stored, segments: whole });
            }
        };
        let mut end = 0;
        let mut mapped = 0_u64;
        for segment in &segments {
            let ends = segment.offset.checked_add(segment.length).filter(|ends| *ends <= size);
            let in_order = segment.offset >= end;
            end = ends.filter(|_| in_order).ok_or_else(|| self.bad(TarError::Sparse))?;
            mapped += segment.length;
        }
        if mapped != self.data {
            return Err(self.bad(TarError::Sparse));
        }
        Ok(EntryKind::File { size, segments })
    }

    fn gnu_map(&mut self, header: &Header) -> Result<Map, LayerError> {
        let mut map = Map::default();
        let (entries, mut more) = header.sparse_map();
        map.push_gnu(entries).map_err(|source| self.bad(source))?;
        while more {
            let block = self.block_or_end()?.ok_or_else(|| self.bad(TarError::Truncated))?;
            more = map.push_continuation(&block).map_err(|source| self.bad(source))?;
        }
        Ok(map)
    }

    /// A PAX 1.0 map: decimal numbers, one a line, filled up to a whole block before the data.
    fn leading_map(&mut self) -> Result<Map, LayerError> {
        let mut map = Map::default();
        let mut lines = Lines { block: [0; BLOCK], at: BLOCK };
        let count = lines.next(self)?;
        for _ in 0..count {
            let segment = Segment { offset: lines.next(self)?, length: lines.next(self)? };
            map.push(segment).map_err(|source| self.bad(source))?;
        }
        Ok(map)
    }

    /// The data of a header that describes another.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>, LayerError> {
        let size = header.size().map_err(|source| self.bad(source))?;
        if size > MAX_EXTENDED {
            return Err(self.bad(TarError::ExtendedTooLarge { size, limit: MAX_EXTENDED }));
        }
        self.expect_data(size);
        let mut bytes = Vec::new();
        self.content().read_to_end(&mut bytes).map_err(LayerError::Read)?;
        if bytes.len() as u64 != size {
            return Err(self.bad(TarError::Truncated));
        }
        Ok(bytes)
    }

    fn expect_data(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn skip_rest(&mut self) -> Result<(), LayerError> {
        let mut left = std::mem::take(&mut self.data).saturating_add(std::mem::take(&mut self.padding));
        let mut sink = [0; 1 << 13];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(sink.len());
            match self.reader.read(&mut sink[..most]) {
                Ok(0) => return Err(self.bad(TarError::Truncated)),
                Ok(count) => {
                    self.offset += count as u64;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        Ok(())
    }

    /// A block; nothing where the archive ends before it. Not all archivers write an end.
    fn block_or_end(&mut self) -> Result<Option<Box<[u8; BLOCK]>>, LayerError> {
        let mut block = Box::new([0; BLOCK]);
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(self.bad(TarError::Truncated)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    fn bad(&self, source: TarError) -> LayerError {
        LayerError::Archive { offset: self.header, source }
    }
}

/// What is left of an entry's data.
struct Content<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.archive.data).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.archive.reader.read(&mut buffer[..most])?;
        self.archive.data -= count as u64;
        self.archive.offset += count as u64;
        Ok(count)
    }
}

/// Lines of a map within an entry's data.
struct Lines {
    block: [u8; BLOCK],
    at: usize,
}

impl Lines {
    fn next<R: Read>(&mut self, archive: &mut Archive<R>) -> Result<u64, LayerError> {
        let mut line = Vec::new();
        loop {
            if self.at == BLOCK {
                let read = archive.content().read_exact(&mut self.block);
                read.map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => archive.bad(TarError::Sparse),
                    _ => LayerError::Read(error),
                })?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            match byte {
                b'\n' => return decimal(&line).ok_or_else(|| archive.bad(TarError::Sparse)),
                // No number is longer.
                _ if line.len() == 20 => return Err(archive.bad(TarError::Sparse)),
                _ => line.push(byte),
            }
        }
    }
}

fn until_zero(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
