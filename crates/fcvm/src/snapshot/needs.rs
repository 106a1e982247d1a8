//! What snapshots need that others would remove: images, kernels, base disks, initrds.
//!
//! Asked of snapshots of any format, as far as they can be read: what one of a newer fcvm needs is not to be
//! removed by this one.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{MANIFEST, SnapshotTag, read};
use crate::{hash::Digest, storage::DataDir};

/// Of a manifest, what others have to know.
#[derive(Debug, Deserialize)]
struct Needs {
    image: Image,
    machine: Machine,
}

#[derive(Debug, Deserialize)]
struct Image {
    digest: Digest,
}

#[derive(Debug, Deserialize)]
struct Machine {
    kernel: Asset,
    initrd: Asset,
    base: Asset,
}

#[derive(Debug, Deserialize)]
struct Asset {
    path: PathBuf,
}

/// A snapshot below `snapshots` that needs an image.
///
/// # Errors
/// Where the directory cannot be read.
pub(crate) fn user_of_image(snapshots: &Path, image: &Digest) -> io::Result<Option<SnapshotTag>> {
    let mut all = all(snapshots)?.into_iter();
    Ok(all.find(|(_, needs)| needs.image.digest == *image).map(|(tag, _)| tag))
}

/// The files that the machines of all snapshots need, apart from images.
///
/// # Errors
/// Where the directory of snapshots cannot be read.
pub(crate) fn assets(data: &DataDir) -> io::Result<Vec<PathBuf>> {
    let of = |needs: Needs| {
        let Machine { kernel, initrd, base } = needs.machine;
        [kernel, initrd, base].map(|asset| data.root().join(asset.path))
    };
    Ok(all(&data.snapshots())?.into_iter().flat_map(|(_, needs)| of(needs)).collect())
}

fn all(snapshots: &Path) -> io::Result<Vec<(SnapshotTag, Needs)>> {
    let mut all = Vec::new();
    for tag in tags(snapshots)? {
        let needs = File::open(snapshots.join(tag.as_str()).join(MANIFEST))
            .and_then(read::bounded)
            .and_then(|bytes| Ok(serde_json::from_slice::<Needs>(&bytes)?));
        match needs {
            Ok(needs) => all.push((tag, needs)),
            // What nobody can read, nobody can use.
            Err(error) => tracing::debug!(%tag, %error, "what a snapshot needs is not known"),
        }
    }
    Ok(all)
}

/// The names of all snapshots, damaged ones among them, in order.
pub(super) fn tags(snapshots: &Path) -> io::Result<Vec<SnapshotTag>> {
    let entries = match std::fs::read_dir(snapshots) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut tags = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            tags.extend(entry.file_name().to_str().and_then(|name| name.parse::<SnapshotTag>().ok()));
        }
    }
    tags.sort_unstable();
    Ok(tags)
}
