//! Writing archives.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::FileExt as _,
    path::Path,
};

use tar::{Builder, Header};

use super::sparse;
use crate::snapshot::{
    MANIFEST, Snapshot, SnapshotError,
    blocks::{self, Extent},
};

/// Where zstd gains more by being slower than an archive is worth.
const LEVEL: i32 = 3;
/// A snapshot's memory may have secrets: of the files that are unpacked by `tar`.
const MODE: u32 = 0o600;

/// Writes a snapshot as an archive. `path` names it in errors.
///
/// # Errors
/// Where a file is not what it was, it has volumes, or something cannot be read or written.
pub fn export(snapshot: &Snapshot, path: &Path, to: impl Write) -> Result<(), SnapshotError> {
    if !snapshot.manifest().volumes.is_empty() {
        return Err(SnapshotError::Volumes { tag: snapshot.tag().clone() });
    }
    snapshot.check_files()?;
    let failed = |source| SnapshotError::WriteArchive { path: path.to_owned(), source };
    let manifest = snapshot.manifest();
    let bytes = serde_json::to_vec_pretty(manifest)
        .map_err(|source| SnapshotError::Json { path: snapshot.path(MANIFEST), source })?;
    let time = u64::try_from(manifest.created.as_second()).unwrap_or(0);
    let mut tar = Builder::new(compressor(to).map_err(failed)?);
    let entry = &mut header(bytes.len() as u64, time);
    tar.append_data(entry, MANIFEST, bytes.as_slice()).map_err(failed)?;
    for (name, record) in &manifest.files {
        let path = snapshot.path(name);
        let file = File::open(&path).map_err(SnapshotError::io("read", &path))?;
        append(&mut tar, name, &file, record.size, time).map_err(failed)?;
    }
    tar.into_inner().and_then(zstd::Encoder::finish).and_then(|mut to| to.flush()).map_err(failed)
}

fn compressor<W: Write>(to: W) -> io::Result<zstd::Encoder<'static, W>> {
    let mut encoder = zstd::Encoder::new(to, LEVEL)?;
    encoder.include_checksum(true)?;
    Ok(encoder)
}

fn append(tar: &mut Builder<impl Write>, name: &str, file: &File, size: u64, time: u64) -> io::Result<()> {
    let extents = blocks::extents(file, size)?;
    let whole = Extent { start: 0, end: size };
    if size == 0 || extents == [whole] {
        return tar.append_data(&mut header(size, time), name, Data::new(file, &[whole]));
    }
    let map = sparse::map(&extents, size);
    let data: u64 = extents.iter().map(|extent| extent.length()).sum();
    tar.append_pax_extensions([
        ("GNU.sparse.major", b"1".as_slice()),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", name.as_bytes()),
        ("GNU.sparse.realsize", size.to_string().as_bytes()),
    ])?;
    let entry = &mut header(map.len() as u64 + data, time);
    // What programs make of it that do not know of holes.
    let other = format!("GNUSparseFile.0/{name}");
    tar.append_data(entry, other, map.as_slice().chain(Data::new(file, &extents)))
}

fn header(size: u64, time: u64) -> Header {
    // What GNU tar reads with pax headers.
    let mut header = Header::new_ustar();
    header.set_size(size);
    header.set_mode(MODE);
    header.set_mtime(time);
    header
}

/// The data of a file, one part after the other.
struct Data<'a> {
    file: &'a File,
    /// The next ones.
    extents: &'a [Extent],
    /// What is left of the first of those before.
    now: Extent,
}

impl<'a> Data<'a> {
    fn new(file: &'a File, extents: &'a [Extent]) -> Self {
        Self { file, extents, now: Extent { start: 0, end: 0 } }
    }
}

impl Read for Data<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.now.length() == 0 {
            let Some((first, rest)) = self.extents.split_first() else { return Ok(0) };
            (self.now, self.extents) = (*first, rest);
        }
        let most = usize::try_from(self.now.length()).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.file.read_at(&mut buffer[..most], self.now.start)?;
        if count == 0 && most != 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.now.start += count as u64;
        Ok(count)
    }
}
