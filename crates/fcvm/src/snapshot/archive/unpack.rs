//! Reading archives, which may be of anybody's making.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    path::Path,
};

use tar::{Archive, EntryType};

use super::{
    meter::{Allowance, Meter},
    sparse,
};
use crate::{
    failpoint,
    hash::Digest,
    snapshot::{
        MANIFEST, Manifest, Snapshot, SnapshotError, SnapshotTag, Store,
        blocks::{BLOCK, BLOCK_LENGTH, CHUNK, Extent, is_zero},
        digest::BlockHasher,
        read,
    },
};

/// Most bytes between the contents of two files: headers and padding.
const MAX_BETWEEN: u64 = 1 << 20;

type Entry<'a, R> = tar::Entry<'a, Meter<R>>;

/// Takes a snapshot in from an archive, under another name where one is given. `path` names the archive in
/// errors.
///
/// # Errors
/// Where there is a snapshot of that name, the archive is not whole, or something cannot be written. Nothing
/// is left then.
pub fn import(
    store: &Store,
    path: &Path,
    from: impl Read,
    tag: Option<&SnapshotTag>,
) -> Result<Snapshot, SnapshotError> {
    let unreadable = |source| SnapshotError::ReadArchive { path: path.to_owned(), source };
    let unfit = |what: String| SnapshotError::Archive { path: path.to_owned(), what };
    let left = Allowance::default();
    left.set(MAX_BETWEEN);
    let plain = zstd::Decoder::new(from).map_err(unreadable)?;
    let mut archive = Archive::new(Meter::new(plain, left.clone()));
    let mut entries = archive.entries().map_err(unreadable)?;

    let mut first = match entries.next().transpose().map_err(unreadable)? {
        Some(entry) if is_file(&entry) && *entry.path_bytes() == *MANIFEST.as_bytes() => entry,
        _ => return Err(unfit(format!("it does not begin with `{MANIFEST}`"))),
    };
    left.set(read::MAX_MANIFEST + MAX_BETWEEN);
    let bytes = read::bounded(&mut first).map_err(unreadable)?;
    let manifest = manifest(&bytes, path)?;
    let partial = store.begin(tag.unwrap_or(&manifest.tag))?;

    let mut missing: BTreeSet<&str> = manifest.files.keys().map(String::as_str).collect();
    loop {
        left.set(MAX_BETWEEN);
        let Some(mut entry) = entries.next().transpose().map_err(unreadable)? else { break };
        let found = identify(&mut entry).map_err(unreadable)?;
        let name = String::from_utf8_lossy(&found.name);
        let (Some(record), true, true) =
            (manifest.files.get(&*name), missing.remove(&*name), is_file(&entry))
        else {
            return Err(unfit(format!("`{name}` does not belong into it")));
        };
        if found.size != record.size {
            return Err(unfit(format!("`{name}` has not the length that it is to have")));
        }
        left.set(u64::MAX);
        let written = unpack(&mut entry, &found, &partial.path(&name)).map_err(|failure| match failure {
            Failure::Read(source) => unreadable(source),
            Failure::Write(source) => SnapshotError::io("write", &partial.path(&name))(source),
        })?;
        if written != record.sha256 {
            return Err(unfit(format!("`{name}` has not the content that it is to have")));
        }
        failpoint::reach("snapshot-file-imported");
    }
    if let Some(name) = missing.first() {
        return Err(unfit(format!("`{name}` is not in it")));
    }
    // Up to the checksum.
    left.set(MAX_BETWEEN);
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
    let files = manifest.files.clone();
    partial.commit_known(manifest, files)
}

/// The manifest of an archive, which may not lead anywhere but into a data directory.
fn manifest(bytes: &[u8], path: &Path) -> Result<Manifest, SnapshotError> {
    let place = path.join(MANIFEST);
    let manifest = read::parse(bytes, &place)?;
    if let Some(asset) = read::foreign_asset(&manifest) {
        let what = format!("it needs `{}` of another host", asset.display());
        return Err(SnapshotError::Invalid { path: place, what });
    }
    // Whoever made the archive would choose what of this host a VM gets.
    if let Some(volume) = manifest.volumes.first() {
        let what = format!("it wants `{}` of this host", volume.path.display());
        return Err(SnapshotError::Invalid { path: place, what });
    }
    Ok(manifest)
}

fn is_file<R: Read>(entry: &Entry<'_, R>) -> bool {
    entry.header().entry_type() == EntryType::Regular
}

/// A file of an archive.
struct Found {
    name: Vec<u8>,
    /// With its holes.
    size: u64,
    holes: Holes,
}

#[derive(PartialEq, Eq)]
enum Holes {
    None,
    /// There is a map of them before the data.
    Mapped,
}

fn identify<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Found> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a header is not understood");
    let mut found = Found { name: entry.path_bytes().into_owned(), size: entry.size(), holes: Holes::None };
    let Some(extensions) = entry.pax_extensions()? else { return Ok(found) };
    let (mut version, mut name, mut size) = ([false; 2], None, None);
    for extension in extensions {
        let extension = extension?;
        match (extension.key_bytes(), extension.value_bytes()) {
            (b"GNU.sparse.major", b"1") => version[0] = true,
            (b"GNU.sparse.minor", b"0") => version[1] = true,
            (b"GNU.sparse.name", value) => name = Some(value.to_vec()),
            (b"GNU.sparse.realsize", _) => size = extension.value().ok().and_then(|text| text.parse().ok()),
            _ => return Err(wrong()),
        }
    }
    (found.name, found.size) = name.zip(size).filter(|_| version == [true; 2]).ok_or_else(wrong)?;
    found.holes = Holes::Mapped;
    Ok(found)
}

enum Failure {
    Read(io::Error),
    Write(io::Error),
}

/// Writes a file, with holes for all zeros; its digest.
fn unpack(from: &mut impl Read, found: &Found, path: &Path) -> Result<Digest, Failure> {
    let extents = match found.holes {
        Holes::None => vec![Extent { start: 0, end: found.size }],
        Holes::Mapped => sparse::read_map(from, found.size).map_err(Failure::Read)?,
    };
    let file = File::create_new(path).map_err(Failure::Write)?;
    file.set_len(found.size).map_err(Failure::Write)?;
    let mut hasher = BlockHasher::default();
    let mut buffer = vec![0; CHUNK];
    for extent in extents {
        let mut at = extent.start;
        while at < extent.end {
            let wanted = usize::try_from(extent.end - at).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = &mut buffer[..wanted];
            from.read_exact(chunk).map_err(Failure::Read)?;
            write(&file, chunk, at, &mut hasher).map_err(Failure::Write)?;
            at += wanted as u64;
        }
    }
    match from.read(&mut [0]).map_err(Failure::Read)? {
        0 => Ok(hasher.finish()),
        _ => Err(Failure::Read(io::Error::new(io::ErrorKind::InvalidData, "a file goes on behind its end"))),
    }
}

/// Writes what is no zeros of some blocks, each row of them at once.
fn write(file: &File, chunk: &[u8], at: u64, hasher: &mut BlockHasher) -> io::Result<()> {
    let mut row = 0..0;
    for (index, block) in chunk.chunks(BLOCK).enumerate() {
        let start = index * BLOCK;
        if is_zero(block) {
            continue;
        }
        hasher.add(at / BLOCK_LENGTH + index as u64, block)?;
        if row.end != start {
            file.write_all_at(&chunk[row.clone()], at + row.start as u64)?;
            row.start = start;
        }
        row.end = start + block.len();
    }
    file.write_all_at(&chunk[row.clone()], at + row.start as u64)
}
