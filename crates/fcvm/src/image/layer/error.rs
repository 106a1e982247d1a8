//! What can be wrong with a layer.

use std::io;

use crate::storage::ext4::Ext4Error;

/// A layer could not be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The archive is not one we can read.
    #[error("bad tar archive at byte {offset}")]
    Archive {
        /// Where the offending header starts.
        offset: u64,
        /// What is wrong with it.
        #[source]
        source: TarError,
    },
    /// The archive could not be read to its end.
    #[error("failed to read the layer")]
    Read(#[source] io::Error),
    /// A whiteout names nothing that can be removed.
    #[error("bad whiteout `{path}`")]
    Whiteout {
        /// Its path in the archive.
        path: String,
    },
    /// The path leads out of the image.
    #[error("path `{path}` has a component `..`")]
    Outside {
        /// The path in the archive.
        path: String,
    },
    /// The entry cannot be stored.
    #[error("failed to apply the archive's entry `{path}`")]
    Apply {
        /// Its path in the archive.
        path: String,
        /// Why.
        #[source]
        source: Ext4Error,
    },
}

/// A tar archive does not follow the format, or uses parts of it that images have no use for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The checksum of a header is wrong: this is no tar archive, or it is damaged.
    #[error("header checksum does not match")]
    Checksum,
    /// A number is none.
    #[error("field `{field}` is not a number in range")]
    Number {
        /// Which field.
        field: &'static str,
    },
    /// The archive ends within an entry.
    #[error("archive is truncated")]
    Truncated,
    /// A long name or a PAX header is too long to be kept.
    #[error("extended header of {size} bytes is larger than {limit}")]
    ExtendedTooLarge {
        /// How long it is.
        size: u64,
        /// How long it may be.
        limit: u64,
    },
    /// A PAX record is malformed.
    #[error("PAX record is malformed")]
    Pax,
    /// A sparse file's map is malformed or does not fit its data.
    #[error("map of a sparse file is malformed")]
    Sparse,
    /// A sparse file has too many segments.
    #[error("sparse file has more than {limit} segments")]
    SparseTooLong {
        /// How many it may have.
        limit: usize,
    },
    /// A type of entry that images have no use for.
    #[error("entries of type `{kind}` are not supported")]
    Kind {
        /// The type, as the header names it.
        kind: String,
    },
}

impl LayerError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Apply { source, .. } => source.hint(),
            Self::Archive { source: TarError::Checksum | TarError::Truncated, .. } => {
                Some("the tarball is damaged, or not a tarball: `tar -tf FILE` shows what is in it".into())
            }
            _ => None,
        }
    }
}
