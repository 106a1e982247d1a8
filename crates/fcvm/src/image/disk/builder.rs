//! Who makes an image's disk.

use std::path::Path;

use super::DiskError;
use crate::image::model::{DiskSource, DiskStats};

/// Makes the disk of an image.
pub trait DiskBuilder {
    /// Makes the disk `target`, which does not exist yet.
    ///
    /// # Errors
    /// Where the image is not what its digests say, or the disk cannot be written.
    fn build(&self, target: &Path, source: &DiskSource) -> Result<DiskStats, DiskError>;
}

/// Writes the disk on the host, straight into a file system image.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostBuilder;

impl DiskBuilder for HostBuilder {
    fn build(&self, target: &Path, source: &DiskSource) -> Result<DiskStats, DiskError> {
        super::build(target, source)
    }
}

/// Asks a second builder for what the first does not understand.
#[derive(Debug)]
pub struct WithFallback<A, B> {
    /// Asked first.
    pub first: A,
    /// Asked where the first says that it does not know how.
    pub fallback: B,
}

impl<A: DiskBuilder, B: DiskBuilder> DiskBuilder for WithFallback<A, B> {
    fn build(&self, target: &Path, source: &DiskSource) -> Result<DiskStats, DiskError> {
        match self.first.build(target, source) {
            Err(error) if error.is_unsupported() => {
                tracing::info!(%error, "the image's disk is made in a VM");
                self.fallback.build(target, source)
            }
            built => built,
        }
    }
}
