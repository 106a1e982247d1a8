//! Files on their way between a container and this machine, as tar archives.
//!
//! The guest's Podman makes the archives and takes them; this is the host's end. What comes from a
//! guest may be anything: it is unpacked into a directory of its own, which nothing in it can leave,
//! and only then moved to where the user wants it, never through a link that it may have left before.

mod pack;
mod place;
mod unpack;

use std::{io, path::PathBuf};

pub use pack::{Packed, pack};
pub use unpack::unpack;

/// Files could not be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// There is nothing of that name.
    #[error("failed to read `{path}`")]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be written.
    #[error("failed to write `{path}`")]
    Write {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The archive is none, or leads somewhere else.
    #[error("failed to unpack what the container sent")]
    Archive(#[source] io::Error),
    /// The archive is empty.
    #[error("the container sent nothing")]
    Empty,
    /// A file would have to replace a directory, or the other way round.
    #[error("`{path}` is {what}, and what is copied is not")]
    Kind {
        /// What is there.
        path: PathBuf,
        /// `a directory` or `no directory`.
        what: &'static str,
    },
}

impl CopyError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Kind { .. } => Some("--overwrite replaces it".into()),
            _ => None,
        }
    }
}

/// Whether a directory may be replaced by a file, and a file by a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overwrite {
    /// Nothing of another kind is replaced.
    SameKind,
    /// Anything is.
    Any,
}
