//! Where images come from. Each transport ends in a [`DiskSource`]: manifest
//! and configuration read and verified, layers ready to be streamed (and then
//! verified by the writer of the disk).
//!
//! Nothing is unpacked: archives are read where they lie, through an index of
//! their headers. Names of blobs are made from parsed digests, so no path of an
//! image's choosing is ever opened.
//!
//! Registries, which are asked for what is not here, are in [`registry`](super::registry).

pub(super) mod decompress;
mod docker_archive;
pub(super) mod docker_daemon;
pub(super) mod engine;
#[cfg(test)]
mod engine_tests;
mod error;
pub(super) mod files;
pub(super) mod oci;
pub(super) mod podman;
mod tar_index;
#[cfg(test)]
mod tests;

use std::path::Path;

pub use engine::{EngineError, Engines};
pub use error::TransportError;

use super::{
    model::DiskSource,
    name::ImageName,
    spec::{Descriptor, OCI_MANIFEST},
};
use crate::hash::Digest;

/// The image of an OCI layout in a directory.
///
/// # Errors
/// Where there is no such layout or image, or it is not what its digests say.
pub fn oci_layout(dir: &Path, tag: Option<&str>) -> Result<DiskSource, TransportError> {
    oci::read(&files::Directory::new(dir), tag)
}

/// The image of an OCI layout in a tar file. A compressed one is unpacked into
/// a nameless file in `cache` first, as it cannot be read at random.
///
/// # Errors
/// Where there is no such archive or image, or it is not what its digests say.
pub fn oci_archive(file: &Path, tag: Option<&str>, cache: &Path) -> Result<DiskSource, TransportError> {
    let archive = tar_index::Archive::open(file, cache)?;
    if !archive.contains("index.json") && archive.contains("manifest.json") {
        return Err(TransportError::IsDockerArchive { path: file.to_owned() });
    }
    oci::read(&archive, tag)
}

/// The image of an archive as `docker save` writes it; compressed ones as for [`oci_archive`].
///
/// # Errors
/// Where there is no such archive or image, or it is not what its digests say.
pub fn docker_archive(
    file: &Path,
    reference: Option<&ImageName>,
    cache: &Path,
) -> Result<DiskSource, TransportError> {
    let archive = tar_index::Archive::open(file, cache)?;
    if !archive.contains("manifest.json") && archive.contains("index.json") {
        return Err(TransportError::IsOciArchive { path: file.to_owned() });
    }
    docker_archive::read(&archive, reference)
}

/// All images of an OCI layout in a directory, or of an OCI or docker archive, told from what is
/// in it; compressed ones as for [`oci_archive`].
///
/// # Errors
/// Where there is none of these, or an image is not what its digests say.
pub fn all(path: &Path, cache: &Path) -> Result<Vec<DiskSource>, TransportError> {
    if path.is_dir() {
        return oci::read_all(&files::Directory::new(path));
    }
    let archive = tar_index::Archive::open(path, cache)?;
    // Docker writes both in one: the layout has the manifest as it was.
    if archive.contains("manifest.json") && !archive.contains("index.json") {
        docker_archive::read_all(&archive)
    } else {
        oci::read_all(&archive)
    }
}

/// The image with that manifest among the blobs of a data directory.
///
/// # Errors
/// Where blobs are missing, or not what their digests say.
pub(super) fn stored(
    root: &Path,
    digest: Digest,
    size: u64,
    names: Vec<String>,
) -> Result<DiskSource, TransportError> {
    let annotations = std::collections::BTreeMap::new();
    let manifest = Descriptor { media_type: OCI_MANIFEST.into(), digest, size, platform: None, annotations };
    oci::image(&files::Directory::new(root), &manifest, names)
}
