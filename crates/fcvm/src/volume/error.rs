//! What can go wrong with volumes.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::VolumeName;
use crate::storage::LockError;

/// A volume cannot be had, or not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// What is to be mapped is not there, or not for this user.
    #[error("failed to map `{path}` to `{target}`")]
    Source {
        /// On the host.
        path: PathBuf,
        /// In the container.
        target: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Only directories and files can be mapped.
    #[error("failed to map `{path}` to `{target}`: it is neither a directory nor a file")]
    Kind {
        /// On the host.
        path: PathBuf,
        /// In the container.
        target: String,
    },
    /// A snapshot is of a VM that had a directory where there is a file now, or the other way round.
    #[error("failed to map `{path}` to `{target}`: it is not what it was when the snapshot was made")]
    Changed {
        /// On the host.
        path: PathBuf,
        /// In the container.
        target: String,
    },
    /// Two VMs cannot both be the only one.
    #[error(
        "volume `{volume}` is one that only its VM changes (`cache=exclusive`): others cannot have it, too"
    )]
    Exclusive {
        /// As the user knows it.
        volume: String,
    },
    /// What a server knows of its client could not be kept.
    #[error("failed to write down what volume `{volume}` has open")]
    Save {
        /// As the user knows it.
        volume: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two things for one place.
    #[error("`{target}` is given twice: a place in the container has one mount")]
    Twice {
        /// In the container.
        target: String,
    },
    /// More than a guest takes.
    #[error("{count} volumes are too many: {most} at most", most = fcvm_proto::volume::MAX_VOLUMES)]
    TooMany {
        /// How many were given.
        count: usize,
    },
    /// The process that serves a volume did not start, or not do its part.
    #[error("failed to serve volume `{volume}`: {what}")]
    Server {
        /// As the user knows it.
        volume: String,
        /// What is wrong.
        what: String,
    },
    /// The way between server and guest broke.
    #[error("failed to connect volume `{volume}` to the guest")]
    Connect {
        /// As the user knows it.
        volume: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such volume.
    #[error("no volume `{name}`")]
    Unknown {
        /// What was asked for.
        name: VolumeName,
    },
    /// There is one already.
    #[error("volume `{name}` exists already")]
    Exists {
        /// What was to be made.
        name: VolumeName,
    },
    /// VMs have it.
    #[error("volume `{name}` is in use by a VM")]
    InUse {
        /// What was to be removed.
        name: VolumeName,
    },
    /// The user was asked.
    #[error("not confirmed: nothing was removed")]
    NotConfirmed,
    /// A file of the store cannot be read or written.
    #[error("failed to {what} `{path}`")]
    Store {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The store is not to be had.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl VolumeError {
    /// An error of the store's file at `path`.
    pub(super) fn store(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Store { what, path: path.to_owned(), source }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Source { source, path, .. } if source.kind() == io::ErrorKind::NotFound => {
                return Some(format!(
                    "make it first (`mkdir {}`): fcvm makes only named volumes",
                    path.display()
                ));
            }
            Self::Kind { .. } => "map the directory that it is in",
            Self::Exclusive { .. } => "run the VM with another cache, or the volume read-only",
            Self::Unknown { .. } => "`fcvm volume ls` lists those there are",
            Self::NotConfirmed => "answer `y`, or add --force",
            Self::InUse { .. } => "`fcvm ls` lists the VMs that run; stop them first",
            _ => return None,
        };
        Some(text.into())
    }
}
