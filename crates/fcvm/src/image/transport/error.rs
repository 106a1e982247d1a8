//! What can be wrong with an image that is read.

use std::{io, path::PathBuf};

use super::EngineError;
use crate::{
    hash::Digest,
    image::{registry::RegistryError, spec::Platform},
};

/// An image could not be read from where it lies.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum TransportError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to write a temporary file in `{path}`")]
    Spool { path: PathBuf, source: io::Error },
    #[error("`{path}` is not an OCI image layout: it has no `{missing}`")]
    NotALayout { path: PathBuf, missing: &'static str },
    #[error("`{path}` is a docker archive, not an OCI archive")]
    IsDockerArchive { path: PathBuf },
    #[error("`{path}` is an OCI archive, not a docker archive")]
    IsOciArchive { path: PathBuf },
    #[error("`{path}` is not a tar archive")]
    NotAnArchive { path: PathBuf },
    #[error("archive `{path}` is cut off or damaged at byte {offset}")]
    Damaged { path: PathBuf, offset: u64 },
    #[error("archive `{path}` has more than {limit} entries")]
    TooManyEntries { path: PathBuf, limit: usize },
    #[error("`{path}` has no image `{wanted}`")]
    NoImage { path: PathBuf, wanted: String, known: Vec<String> },
    #[error("`{path}` holds {} images, and none was named", known.len())]
    WhichImage { path: PathBuf, known: Vec<String> },
    #[error("`{path}` holds no image")]
    Empty { path: PathBuf },
    #[error("`{path}` has no image for {wanted}")]
    NoPlatform { path: PathBuf, wanted: Platform, found: Vec<String> },
    #[error("`{path}` has no `{name}`")]
    Missing { path: PathBuf, name: String },
    #[error("`{name}` in `{path}` is {size} bytes, more than the {limit} allowed")]
    TooLarge { path: PathBuf, name: String, size: u64, limit: u64 },
    #[error("`{name}` in `{path}` is {found} bytes, not {expected}")]
    Size { path: PathBuf, name: String, expected: u64, found: u64 },
    #[error("`{name}` in `{path}` has digest {found}, not {expected}")]
    Digest { path: PathBuf, name: String, expected: Digest, found: Digest },
    #[error("`{name}` in `{path}` is not what it should be")]
    Json { path: PathBuf, name: String, source: serde_json::Error },
    #[error("`{name}` in `{path}` is of type `{media_type}`, which is not part of a container image")]
    MediaType { path: PathBuf, name: String, media_type: String },
    #[error("the manifest in `{path}` is of version {version}, not 2")]
    Schema { path: PathBuf, version: u32 },
    #[error("indexes in `{path}` are nested too deeply")]
    TooDeep { path: PathBuf },
    #[error("the image in `{path}` has {layers} layers, but its configuration has {diff_ids}")]
    LayerCount { path: PathBuf, layers: usize, diff_ids: usize },
}

impl TransportError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Registry(error) => return error.hint(),
            Self::Engine(error) => return error.hint(),
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                "`oci:DIR`, `oci-archive:FILE` and `docker-archive:FILE` take the path of what is there"
                    .into()
            }
            Self::IsDockerArchive { path } => format!("use `docker-archive:{}`", path.display()),
            Self::IsOciArchive { path } => format!("use `oci-archive:{}`", path.display()),
            Self::NotALayout { .. } | Self::NotAnArchive { .. } => {
                "`oci:` takes a directory with an `index.json`, `oci-archive:` and `docker-archive:` a tar \
                 file; for the tarball of a root file system: `fcvm image import NAME FILE`"
                    .into()
            }
            Self::NoImage { known, .. } if known.is_empty() => "leave the tag away".into(),
            Self::NoImage { known, .. } | Self::WhichImage { known, .. } if !known.is_empty() => {
                format!("name one of {}", list(known))
            }
            Self::WhichImage { .. } => "none of them has a tag; copy the one you want elsewhere".into(),
            Self::NoPlatform { found, .. } if !found.is_empty() => {
                format!("it has {}; an image must be built for this machine", list(found))
            }
            Self::Damaged { .. } | Self::Size { .. } | Self::Digest { .. } | Self::Missing { .. } => {
                "the image was damaged or not copied whole; copy or save it again".into()
            }
            Self::Schema { .. } => "save the image again with a newer Docker or Podman".into(),
            Self::Spool { .. } => "unpack the archive first, or free space in the data directory".into(),
            _ => return None,
        })
    }
}

/// A few of the names, for a hint; they are the image's words and may be hostile.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<_> = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{}`", name.chars().take(256).flat_map(char::escape_debug).collect::<String>()))
        .collect();
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
