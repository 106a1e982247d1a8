//! What can be wrong with an image.

use std::{error::Error, io, path::PathBuf};

use bytesize::ByteSize;

use super::{
    credentials::CredentialsError, disk::DiskError, name::NameError, reference::ReferenceError,
    registries::RegistriesError, registry::RegistryError, store::Holder, transport::TransportError,
};
use crate::{hash::Digest, storage::LockError};

/// An image could not be found, read, stored or made into a disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("failed to pull image `{name}`")]
    Pull { name: String, source: Box<RegistryError> },
    #[error("no registry has an image `{name}`")]
    NoRegistry { name: String, source: Box<RegistryError>, asked: Vec<String> },
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("no image `{name}`")]
    Unknown { name: String },
    #[error("image `{name}` is of this machine alone: no registry can be asked for it")]
    LocalOnly { name: String },
    #[error("`{name}` is the beginning of {} images' ids", ids.len())]
    Ambiguous { name: String, ids: Vec<Digest> },
    #[error("image `{name}` is for {found}, not {wanted}")]
    Platform { name: String, found: String, wanted: String },
    #[error("`{name}` cannot name an image that is made here")]
    ImportName { name: String, source: NameError },
    #[error("`{path}` is empty, and no tarball")]
    EmptyTarball { path: PathBuf },
    #[error("environment variable SOURCE_DATE_EPOCH is `{value}`, not a number of seconds since 1970")]
    SourceDateEpoch { value: String },
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("failed to write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error("failed to remove `{path}`")]
    Remove { path: PathBuf, source: io::Error },
    #[error("`{path}` is not what fcvm writes")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("`{path}` has format {found}, newer than {supported}")]
    TooNew { path: PathBuf, found: u32, supported: u32 },
    #[error("`{path}` was changed or damaged after it was made")]
    Corrupt { path: PathBuf },
    #[error("not enough space in `{path}`: at least {needed} bytes are needed, {available} are available")]
    Space { path: PathBuf, needed: u64, available: u64 },
    #[error("failed to make the disk of image {}", digest.short())]
    Disk { digest: Digest, source: Box<DiskError> },
    #[error("image `{name}` is in use by {holder}")]
    InUse { name: String, holder: Holder },
    #[error("image `{name}` has {} names", names.len())]
    SeveralNames { name: String, names: Vec<String> },
    #[error("the layers of image {} are not in the store", digest.short())]
    NoBlobs { digest: Digest },
    #[error("a directory is written to, and none is named")]
    NoOutput,
    #[error("standard output is a terminal")]
    Terminal,
    #[error("standard input is a terminal")]
    NoInput,
    #[error("not confirmed: nothing was removed")]
    NotConfirmed,
}

impl ImageError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Reference(error) => return error.hint(),
            Self::Registries(error) => return error.hint(),
            Self::Credentials(error) => return error.hint(),
            Self::Transport(error) => return error.hint(),
            Self::Unknown { .. } => "`fcvm image ls` lists the images there are".into(),
            Self::Pull { source, .. } => return source.hint(),
            Self::NoRegistry { asked, .. } => format!(
                "asked for {}; `fcvm image ls` lists the images there are here",
                asked.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
            Self::LocalOnly { .. } => {
                "names with a registry can be pulled; `fcvm image ls` lists the images there are here".into()
            }
            Self::Ambiguous { ids, .. } => {
                let ids: Vec<_> = ids.iter().take(5).map(|id| format!("`{}`", id.short())).collect();
                format!("write more digits: {}", ids.join(", "))
            }
            Self::Platform { wanted, .. } => format!("use an image built for {wanted}"),
            Self::ImportName { source, .. } => return source.hint(),
            Self::TooNew { .. } => "use the newer fcvm, or another --data-dir".into(),
            Self::Corrupt { .. } => {
                "remove the image with `fcvm image rm`, then import it or run it from its source again".into()
            }
            Self::Space { needed, available, .. } => {
                let missing = ByteSize(needed.saturating_sub(*available)).display().si();
                format!(
                    "free {missing} or more, for instance with `fcvm image rm`, or use another --data-dir"
                )
            }
            Self::Disk { source, .. } => return source.hint(),
            Self::InUse { holder, .. } => holder.advice(),
            Self::SeveralNames { names, .. } => {
                format!("remove them all with --force, or one by name: {}", names.join(", "))
            }
            Self::NoBlobs { .. } => {
                "an image that was run from a path keeps its disk only; `fcvm image load` keeps the layers too"
                    .into()
            }
            Self::NoOutput => "name it with --output DIR".into(),
            Self::Terminal => "name a file with --output FILE, or redirect the output".into(),
            Self::NoInput => "name a file with --input FILE, or redirect the input".into(),
            Self::NotConfirmed => "answer `y`, or add --force".into(),
            error if storage_is_full(error) => {
                "free space, for instance with `fcvm image rm`, or use another --data-dir".into()
            }
            _ => return None,
        })
    }
}

fn storage_is_full(error: &ImageError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }) {
            return true;
        }
        cause = error.source();
    }
    false
}
