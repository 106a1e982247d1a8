//! Why a disk could not be made.

use std::{error::Error, io, path::PathBuf};

use bytesize::ByteSize;

use crate::{
    hash::Digest,
    image::layer::{LayerError, TarError},
    storage::ext4::Ext4Error,
};

/// An image could not be made into a disk; nothing is left of it. Layers are counted from one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The manifest is not the one that was asked for.
    #[error("manifest has digest `{found}`, not `{expected}`")]
    ManifestDigest {
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// The configuration is not the one the manifest names.
    #[error("image configuration has digest `{found}`, not `{expected}` as its manifest says")]
    ConfigDigest {
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// The manifest cannot be read.
    #[error("manifest cannot be read")]
    Manifest(#[source] serde_json::Error),
    /// The configuration cannot be read.
    #[error("image configuration cannot be read")]
    Config(#[source] serde_json::Error),
    /// There are more or fewer layers than the configuration has.
    #[error("image has {layers} layers, and its configuration {expected}")]
    LayerCount {
        /// How many there are.
        layers: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A layer's bytes cannot be read.
    #[error("failed to read layer {layer}")]
    Read {
        /// Which layer.
        layer: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer's bytes are not those its descriptor names.
    #[error("layer {layer} has digest `{found}`, not `{expected}`")]
    LayerDigest {
        /// Which layer.
        layer: usize,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// A layer has more or fewer bytes than its descriptor says.
    #[error("layer {layer} has {found} bytes or more, not {expected}")]
    LayerSize {
        /// Which layer.
        layer: usize,
        /// How many it should have.
        expected: u64,
        /// How many were read before that was noticed.
        found: u64,
    },
    /// A layer's content is not what the configuration names.
    #[error("content of layer {layer} has digest `{found}`, not `{expected}`")]
    DiffId {
        /// Which layer.
        layer: usize,
        /// The digest it should have.
        expected: Digest,
        /// The digest it has.
        found: Digest,
    },
    /// A layer cannot be decompressed.
    #[error("failed to decompress layer {layer}")]
    Decompress {
        /// Which layer.
        layer: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A layer is compressed in a way images do not use.
    #[error("layer {layer} is compressed with `{compression}`, which is not supported")]
    Compression {
        /// Which layer.
        layer: usize,
        /// How it is compressed.
        compression: &'static str,
    },
    /// A layer cannot be applied.
    #[error("failed to apply layer {layer}")]
    Layer {
        /// Which layer.
        layer: usize,
        /// Why.
        #[source]
        source: LayerError,
    },
    /// The disk would fill up its file system.
    #[error("no space for the image disk in `{directory}`: {} available", ByteSize(*available))]
    NoSpace {
        /// Where the disk is made.
        directory: PathBuf,
        /// How many bytes were free there.
        available: u64,
    },
    /// What surrounds the layers cannot be written.
    #[error("failed to write the image disk's file system")]
    FileSystem(#[source] Ext4Error),
    /// The guest that was to make the disk did not.
    #[error("failed to make the image disk in a VM")]
    Guest(#[source] Box<dyn Error + Send + Sync>),
    /// The disk's file cannot be made.
    #[error("failed to write image disk `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    /// Whether the image uses something that our writer does not know and Podman may.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::Compression { .. } => true,
            Self::Layer { source: LayerError::Archive { source, .. }, .. } => {
                matches!(source, TarError::Kind { .. } | TarError::SparseTooLong { .. })
            }
            _ => false,
        }
    }

    /// Whether a layer's stored bytes are not what they were.
    #[must_use]
    pub fn is_bad_layer(&self) -> bool {
        matches!(self, Self::LayerDigest { .. } | Self::LayerSize { .. } | Self::Decompress { .. })
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSpace { .. } => Some("free some space, or name another data directory".into()),
            Self::LayerDigest { .. } | Self::LayerSize { .. } | Self::Decompress { .. } => {
                Some("the layer is damaged: fetch the image again".into())
            }
            Self::Compression { .. } => Some("layers are plain tar archives, gzip or zstd".into()),
            Self::Layer { source, .. } => source.hint(),
            Self::FileSystem(source) => source.hint(),
            _ => None,
        }
    }
}
