//! Random access to a tar archive: one pass over its headers notes where each
//! file lies; contents are then read in place.
//!
//! Reads headers itself, since the `tar` crate reads the long names of an entry
//! whole, however large they claim to be, before anyone can object.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead as _, Read},
    os::unix::fs::{FileExt as _, FileTypeExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use tar::{EntryType, Header};

use super::{
    TransportError,
    decompress::{Magic, decoder},
    files::{Files, Found},
};

const BLOCK: usize = 512;
const MAX_ENTRIES: usize = 100_000;
/// Of a long name or a set of extended attributes.
const MAX_EXTENSION: u64 = 1 << 20;
const MAX_LINKS: usize = 16;

/// An archive and where its files lie.
pub(super) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    /// Keyed by [`normal`] names.
    entries: HashMap<Vec<u8>, Entry>,
}

enum Entry {
    File {
        offset: u64,
        size: u64,
    },
    /// To another entry, by its [`normal`] name.
    Link(Vec<u8>),
}

impl Archive {
    /// Opens an archive. One that is compressed, or is a pipe, is written to a nameless file in `cache`.
    pub(super) fn open(path: &Path, cache: &Path) -> Result<Self, TransportError> {
        let read = |source| TransportError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let kind = file.metadata().map_err(read)?.file_type();
        let seekable = kind.is_file() || kind.is_block_device();
        let (magic, reader) = Magic::detect(&file).map_err(read)?;
        let file = if seekable && magic == Magic::Plain {
            file
        } else {
            spool(path, decoder(magic, reader).map_err(read)?, cache)?
        };
        Self::of(path, file)
    }

    /// An open archive that is not compressed; `path` is what errors say.
    pub(super) fn of(path: &Path, file: File) -> Result<Self, TransportError> {
        let mut archive = Self { path: path.to_owned(), file: Arc::new(file), entries: HashMap::new() };
        archive.scan()?;
        Ok(archive)
    }

    /// Whether it has a file of that name.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(&normal(name.as_bytes()))
    }

    fn scan(&mut self) -> Result<(), TransportError> {
        let path = self.path.clone();
        let read = |source| TransportError::Read { path: path.clone(), source };
        // Not the metadata's length, which a block device does not have.
        let length = io::Seek::seek(&mut &*self.file, io::SeekFrom::End(0)).map_err(read)?;
        let mut offset = 0;
        let mut extension = Extension::default();
        while offset < length {
            let damaged = || TransportError::Damaged { path: self.path.clone(), offset };
            let mut block = [0; BLOCK];
            self.file.read_exact_at(&mut block, offset).map_err(|_| damaged())?;
            if block == [0; BLOCK] {
                break;
            }
            let header = Header::from_byte_slice(&block);
            if !checksum_is_right(header) {
                return Err(match offset {
                    0 => TransportError::NotAnArchive { path: self.path.clone() },
                    _ => damaged(),
                });
            }
            let kind = header.entry_type();
            let in_header = header.entry_size().map_err(|_| damaged())?;
            let size = match extension.size {
                Some(size) if !is_extension(kind) => size,
                _ => in_header,
            };
            let start = offset + BLOCK as u64;
            let end = start.checked_add(size).filter(|&end| end <= length).ok_or_else(damaged)?;
            if is_extension(kind) {
                if size > MAX_EXTENSION {
                    return Err(damaged());
                }
                let mut bytes = vec![0; usize::try_from(size).map_err(|_| damaged())?];
                self.file.read_exact_at(&mut bytes, start).map_err(read)?;
                extension.add(kind, &bytes).ok_or_else(damaged)?;
            } else {
                let extension = std::mem::take(&mut extension);
                let name = normal(&extension.name.unwrap_or_else(|| header.path_bytes().into_owned()));
                let link = || {
                    let raw = header.link_name_bytes().map(std::borrow::Cow::into_owned);
                    extension.link.or(raw).unwrap_or_default()
                };
                let entry = match kind {
                    EntryType::Regular | EntryType::Continuous => Some(Entry::File { offset: start, size }),
                    EntryType::Link => Some(Entry::Link(normal(&link()))),
                    EntryType::Symlink => Some(Entry::Link(beside(&name, &link()))),
                    _ => None,
                };
                if let Some(entry) = entry {
                    self.entries.insert(name, entry);
                }
                if self.entries.len() > MAX_ENTRIES {
                    let path = self.path.clone();
                    return Err(TransportError::TooManyEntries { path, limit: MAX_ENTRIES });
                }
            }
            offset = end.checked_next_multiple_of(BLOCK as u64).ok_or_else(damaged)?;
        }
        if self.entries.is_empty() {
            return Err(TransportError::NotAnArchive { path: self.path.clone() });
        }
        Ok(())
    }
}

impl Files for Archive {
    fn path(&self) -> &Path {
        &self.path
    }

    fn find(&self, name: &str) -> Result<Found, TransportError> {
        let mut key = &normal(name.as_bytes());
        for _ in 0..MAX_LINKS {
            match self.entries.get(key) {
                Some(&Entry::File { offset, size }) => {
                    let file = self.file.clone();
                    let open = move || -> io::Result<Box<dyn Read + Send>> {
                        Ok(Box::new(Section { file: file.clone(), offset, end: offset + size }))
                    };
                    return Ok(Found { size, open: Box::new(open) });
                }
                Some(Entry::Link(target)) => key = target,
                None => break,
            }
        }
        Err(TransportError::Missing { path: self.path.clone(), name: name.to_owned() })
    }
}

/// A stretch of a file, read by position: many may be read at once.
struct Section {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if count == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += count as u64;
        Ok(count)
    }
}

/// What goes before an entry and says more of it.
#[derive(Default)]
struct Extension {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
}

impl Extension {
    fn add(&mut self, kind: EntryType, bytes: &[u8]) -> Option<()> {
        let text = || bytes.split(|&byte| byte == 0).next().unwrap_or_default().to_vec();
        match kind {
            EntryType::GNULongName => self.name = Some(text()),
            EntryType::GNULongLink => self.link = Some(text()),
            EntryType::XHeader => {
                for record in tar::PaxExtensions::new(bytes) {
                    let record = record.ok()?;
                    match record.key_bytes() {
                        b"path" => self.name = Some(record.value_bytes().to_vec()),
                        b"linkpath" => self.link = Some(record.value_bytes().to_vec()),
                        b"size" => self.size = Some(record.value().ok()?.parse().ok()?),
                        _ => {}
                    }
                }
            }
            // Attributes for all that follows; none of them matter here.
            _ => {}
        }
        Some(())
    }
}

fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName | EntryType::GNULongLink | EntryType::XHeader | EntryType::XGlobalHeader
    )
}

/// The sum of the header's bytes with the checksum itself taken as blanks.
fn checksum_is_right(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let sum = bytes[..148].iter().chain(&bytes[156..]).map(|&byte| u32::from(byte)).sum::<u32>();
    header.cksum().is_ok_and(|stored| stored == sum + 8 * u32::from(b' '))
}

/// A name without `.`, `..` and needless slashes; `..` never leads above the top.
fn normal(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

/// Where a symbolic link of that name points to.
fn beside(name: &[u8], target: &[u8]) -> Vec<u8> {
    if target.starts_with(b"/") {
        return normal(target);
    }
    let parent = name.iter().rposition(|&byte| byte == b'/').map_or(&b""[..], |slash| &name[..slash]);
    normal(&[parent, b"/", target].concat())
}

/// Writes what a reader yields to a file without a name, which dies with its last descriptor.
fn spool(path: &Path, reader: Box<dyn Read + Send + '_>, cache: &Path) -> Result<File, TransportError> {
    let failed = |source| TransportError::Spool { path: cache.to_owned(), source };
    fs_err::create_dir_all(cache).map_err(failed)?;
    let file = tempfile::tempfile_in(cache).map_err(failed)?;
    let mut reader = io::BufReader::with_capacity(256 << 10, reader);
    loop {
        // Not `io::copy`: whose fault it is decides what the error says.
        let chunk =
            reader.fill_buf().map_err(|source| TransportError::Read { path: path.to_owned(), source })?;
        if chunk.is_empty() {
            return Ok(file);
        }
        let count = chunk.len();
        io::Write::write_all(&mut &file, chunk).map_err(failed)?;
        reader.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(build: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        build(&mut builder);
        builder.into_inner().unwrap()
    }

    fn file(builder: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    }

    fn link(builder: &mut tar::Builder<Vec<u8>>, kind: EntryType, name: &str, target: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, name, target).unwrap();
    }

    fn open(bytes: &[u8]) -> Result<Archive, TransportError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar");
        std::fs::write(&path, bytes).unwrap();
        Archive::open(&path, directory.path())
    }

    #[test]
    fn files_are_found_through_links() {
        let long = "d/".repeat(80) + "long";
        let bytes = archive(|builder| {
            file(builder, "a/layer.tar", b"one");
            file(builder, &long, b"two");
            link(builder, EntryType::Symlink, "b/layer.tar", "../a/layer.tar");
            link(builder, EntryType::Link, "c/layer.tar", "b/layer.tar");
            link(builder, EntryType::Symlink, "out", "../../../a/layer.tar");
            link(builder, EntryType::Symlink, "loop", "loop");
        });
        let archive = open(&bytes).unwrap();
        for (name, content) in
            [("a/layer.tar", "one"), ("./c/layer.tar", "one"), ("out", "one"), (long.as_str(), "two")]
        {
            assert_eq!(archive.read(name).unwrap(), content.as_bytes(), "{name}");
        }
        for name in ["loop", "none", "/etc/passwd", "../../etc/passwd"] {
            assert!(matches!(archive.read(name), Err(TransportError::Missing { .. })), "{name}");
        }
    }

    #[test]
    fn a_size_may_be_in_an_extended_header() {
        let mut bytes = archive(|builder| {
            builder.append_pax_extensions([("size", &b"3"[..]), ("path", b"real")]).unwrap();
            let mut header = Header::new_ustar();
            header.set_path("cut").unwrap();
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        });
        bytes.truncate(bytes.len() - 1024);
        bytes.extend_from_slice(b"abc");
        bytes.resize(bytes.len() + 2048, 0);
        let end = bytes.len().next_multiple_of(512);
        bytes.resize(end, 0);
        assert_eq!(open(&bytes).unwrap().read("real").unwrap(), b"abc");
    }

    #[test]
    fn compressed_archives_are_spooled() {
        let plain = archive(|builder| file(builder, "a", b"one"));
        let packed = zstd::encode_all(plain.as_slice(), 1).unwrap();
        assert_eq!(open(&packed).unwrap().read("a").unwrap(), b"one");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        io::Write::write_all(&mut gzip, &plain).unwrap();
        let packed = gzip.finish().unwrap();
        assert_eq!(open(&packed).unwrap().read("a").unwrap(), b"one");
        assert!(matches!(open(&packed[..packed.len() / 2]), Err(TransportError::Read { .. })));
    }

    #[test]
    fn what_is_cut_off_or_no_archive_is_refused() {
        let bytes = archive(|builder| {
            file(builder, "a", &[7; 3000]);
            file(builder, "b", b"x");
        });
        assert!(matches!(open(&bytes[..1000]), Err(TransportError::Damaged { offset: 0, .. })));
        assert!(matches!(open(&bytes[..3584 + 100]), Err(TransportError::Damaged { offset: 3584, .. })));
        for junk in [&b""[..], &[0; 1024], &[b'x'; 5000]] {
            assert!(matches!(open(junk), Err(TransportError::NotAnArchive { .. })));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_archive_panics(seed in proptest::collection::vec(proptest::num::u8::ANY, 0..600), at in 0_usize..2048) {
            let mut bytes = archive(|builder| {
                file(builder, &"long/".repeat(30), b"x");
                link(builder, EntryType::Symlink, "b", "../a");
            });
            let at = at.min(bytes.len());
            let end = (at + seed.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&seed[..end - at]);
            drop(open(&bytes));
        }
    }
}
