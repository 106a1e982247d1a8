//! Applies archives to a file system.

use std::io::Read;

use super::{
    LayerError,
    archive::{Archive, Entry, EntryKind},
};
use crate::storage::ext4::{Ext4Error, Ext4Writer, Xattr};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// What AUFS, the first of the layered file systems, kept for itself.
const AUFS: &[u8] = b".wh..wh.";

/// What names that start with `.wh.` mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whiteouts {
    Apply,
    Literal,
}

/// Applies a layer, an uncompressed tar archive, on top of those before it.
///
/// The stream is read to the archive's end, not to its own. Attributes in which overlay file
/// systems keep their notes are left out, for they would hide or redirect files.
///
/// # Errors
/// Where the archive is malformed or cannot be read, or an entry cannot be stored.
pub fn apply_layer(writer: &mut Ext4Writer, layer: impl Read) -> Result<(), LayerError> {
    writer.begin_layer();
    apply(writer, layer, Whiteouts::Apply)
}

/// Unpacks an uncompressed tar archive, every name taken literally.
///
/// # Errors
/// Where the archive is malformed or cannot be read, or an entry cannot be stored.
pub fn apply_tar(writer: &mut Ext4Writer, archive: impl Read) -> Result<(), LayerError> {
    apply(writer, archive, Whiteouts::Literal)
}

fn apply(writer: &mut Ext4Writer, reader: impl Read, whiteouts: Whiteouts) -> Result<(), LayerError> {
    let mut archive = Archive::new(reader);
    while let Some(mut entry) = archive.next()? {
        let path = clean(&entry.path)?;
        if whiteouts == Whiteouts::Apply {
            match whiteout(&path) {
                Ok(Whiteout::None) => {}
                Ok(Whiteout::Ignore) => continue,
                Ok(Whiteout::Opaque(directory)) => {
                    writer.hide_children(directory).map_err(|source| failed(&entry, source))?;
                    continue;
                }
                Ok(Whiteout::Of(hidden)) => {
                    writer.hide(&hidden).map_err(|source| failed(&entry, source))?;
                    continue;
                }
                Err(Malformed) => return Err(LayerError::Whiteout { path: shown(&entry.path) }),
            }
        }
        let has_content = matches!(entry.kind, EntryKind::File { .. } | EntryKind::Directory);
        entry.metadata.xattrs.retain(|xattr| is_kept(xattr, has_content));
        let Entry { metadata, kind, .. } = &entry;
        let stored = match kind {
            EntryKind::File { size, segments } => {
                writer.sparse_file(&path, metadata, *size, segments, &mut archive.content())
            }
            EntryKind::Directory => writer.mkdir(&path, metadata),
            EntryKind::Symlink(target) => writer.symlink(&path, metadata, target),
            EntryKind::Hardlink(target) => {
                let target = clean(target)?;
                writer.hardlink(&path, &target)
            }
            EntryKind::Special(special) => writer.special(&path, metadata, *special),
        };
        stored.map_err(|source| failed(&entry, source))?;
    }
    Ok(())
}

/// What an entry of a layer removes.
enum Whiteout<'a> {
    None,
    Ignore,
    Opaque(&'a [u8]),
    Of(Vec<u8>),
}

/// The whiteout hides nothing that could have a name.
struct Malformed;

fn whiteout(path: &[u8]) -> Result<Whiteout<'_>, Malformed> {
    let slash = path.iter().rposition(|byte| *byte == b'/');
    let (parents, name) = match slash {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    for component in parents.split(|byte| *byte == b'/') {
        if component.starts_with(AUFS) {
            return Ok(Whiteout::Ignore);
        }
        if component.starts_with(WHITEOUT) {
            return Err(Malformed);
        }
    }
    if name == OPAQUE {
        return Ok(Whiteout::Opaque(parents));
    }
    if name.starts_with(AUFS) {
        return Ok(Whiteout::Ignore);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Whiteout::None),
        Some(b"" | b"." | b"..") => Err(Malformed),
        Some(hidden) if parents.is_empty() => Ok(Whiteout::Of(hidden.to_vec())),
        Some(hidden) => Ok(Whiteout::Of([parents, b"/", hidden].concat())),
    }
}

/// Whether an attribute goes into the image: of a kind ext4 stores, on a file that can have it,
/// and not one that steers an overlay.
fn is_kept(xattr: &Xattr, has_content: bool) -> bool {
    let name = xattr.name.as_slice();
    if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
        return false;
    }
    match name {
        b"system.posix_acl_access" | b"system.posix_acl_default" => has_content,
        _ if name.starts_with(b"user.") => has_content,
        _ => name.starts_with(b"trusted.") || name.starts_with(b"security."),
    }
}

/// The path relative to the root: without leading slashes, empty components and `.`.
fn clean(path: &[u8]) -> Result<Vec<u8>, LayerError> {
    let mut clean = Vec::with_capacity(path.len());
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(LayerError::Outside { path: shown(path) }),
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
    }
    Ok(clean)
}

fn failed(entry: &Entry, source: Ext4Error) -> LayerError {
    LayerError::Apply { path: shown(&entry.path), source }
}

/// A path as errors show it, cut where it is unreasonably long.
fn shown(path: &[u8]) -> String {
    match path.get(..256) {
        Some(start) if path.len() > 256 => format!("{}...", start.escape_ascii()),
        _ => path.escape_ascii().to_string(),
    }
}
