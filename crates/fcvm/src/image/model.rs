//! What an image is made of, between those who find it and those who make its disk.

use std::{
    fmt,
    io::{self, Read},
};

use crate::hash::Digest;

/// An image ready to be made into a disk: its manifest and configuration, and
/// where its layers can be read.
#[derive(Debug)]
pub struct DiskSource {
    /// The digest of the manifest, as it was resolved.
    pub manifest_digest: Digest,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The configuration's bytes; their digest is the image's id.
    pub config: Vec<u8>,
    /// The names it was found with, fully qualified. The disk has none: the same image under
    /// another name is the same disk.
    pub names: Vec<String>,
    /// The layers, lowest first; one for each of the configuration's `diff_ids`.
    pub layers: Vec<LayerSource>,
}

/// One layer: a tar stream, perhaps compressed.
pub struct LayerSource {
    /// The digest of the bytes as stored; `None` where the archive names none.
    pub digest: Option<Digest>,
    /// How many bytes are stored; `None` where that is not said.
    pub size: Option<u64>,
    /// How the bytes are compressed.
    pub compression: Compression,
    /// Opens the stored bytes from their start.
    pub open: OpenLayer,
}

/// Opens a layer's stored bytes from their start.
pub type OpenLayer = Box<dyn Fn() -> io::Result<Box<dyn Read + Send>> + Send + Sync>;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar stream.
    None,
    /// Gzip, of one or several members.
    Gzip,
    /// Zstandard, of one or several frames.
    Zstd,
    /// Not said (docker-archive): told from the first bytes.
    Detect,
}

/// What a disk came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskStats {
    /// The disk's size.
    pub bytes: u64,
    /// What it takes of the host's disk; holes take nothing.
    pub allocated: u64,
    /// Files of the image, of any type, directories included.
    pub files: u64,
    /// The sum of the sizes of the image's regular files.
    pub unpacked: u64,
}

impl fmt::Debug for LayerSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerSource")
            .field("digest", &self.digest)
            .field("size", &self.size)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}
