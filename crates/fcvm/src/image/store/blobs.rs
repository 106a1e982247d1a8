//! Blobs: layers, configurations and manifests, by digest.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use tempfile::{NamedTempFile, TempPath};

use super::{
    PartialBlob, Pruning, Store,
    image::{MANIFEST, read_verified},
};
use crate::{
    hash::{Digest, Hasher},
    image::{ImageError, model::DiskSource, spec::Manifest, transport},
    storage::{Lock, TEMPORARY_PREFIX},
};

/// How long an unfinished pull can be taken up again.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// Which of the blobs that no image refers to are removed.
#[derive(Debug, Clone)]
pub(super) enum Unused {
    /// Those of pulls and imports that nobody went on with for a day.
    Abandoned,
    /// These, by their hex digits, and the abandoned ones.
    Of(HashSet<String>),
    /// All.
    All,
}

/// The right to add blobs. While it lives none is collected, so that those
/// which no image refers to yet stay.
pub(in crate::image) struct BlobAdder {
    directory: PathBuf,
    partial: PathBuf,
    _lock: Lock,
}

/// A blob being written; its digest is not known before its end.
pub(in crate::image) struct BlobWriter {
    directory: PathBuf,
    temporary: NamedTempFile,
    hasher: Hasher,
    size: u64,
}

/// A blob that is whole and has no name yet. Dropped, it is gone.
pub(in crate::image) struct PendingBlob {
    pub(in crate::image) digest: Digest,
    pub(in crate::image) size: u64,
    directory: PathBuf,
    temporary: TempPath,
}

impl Store {
    pub(in crate::image) fn add_blobs(&self) -> Result<BlobAdder, ImageError> {
        // What killed imports left takes space that this one may need.
        if let Err(error) = self.collect_blobs(&Unused::Abandoned, Pruning::Real) {
            tracing::warn!(%error, "unused blobs are not removed");
        }
        let lock = Lock::share(&self.blobs.join("lock"))?;
        let (directory, partial) = (self.blob_directory(), self.partial_directory());
        for path in [&directory, &partial] {
            fs_err::create_dir_all(path)
                .map_err(|source| ImageError::Write { path: path.clone(), source })?;
        }
        Ok(BlobAdder { directory, partial, _lock: lock })
    }

    /// The image made of stored blobs, if they are all there.
    pub(in crate::image) fn blob_source(&self, digest: &Digest) -> Result<Option<DiskSource>, ImageError> {
        let Some(root) = self.blobs.parent() else { return Ok(None) };
        let Ok(manifest) = std::fs::metadata(self.blob_directory().join(digest.hex())) else {
            return Ok(None);
        };
        let names = super::names::read(&self.images)?;
        let names =
            names.iter().filter(|(_, of)| of.image == *digest).map(|(name, _)| name.to_string()).collect();
        match transport::stored(root, *digest, manifest.len(), names) {
            Ok(source) => Ok(Some(source)),
            Err(error) => {
                tracing::debug!(%digest, %error, "blobs cannot make the image anew");
                Ok(None)
            }
        }
    }

    /// Removes blobs that no image refers to, and what killed imports left; the files and their
    /// lengths. Skipped while blobs are being added; whoever comes next does it then.
    pub(super) fn collect_blobs(
        &self,
        which: &Unused,
        mode: Pruning,
    ) -> Result<Vec<(PathBuf, u64)>, ImageError> {
        let mut gone = Vec::new();
        if !self.blob_directory().exists() {
            return Ok(gone);
        }
        let Some(_lock) = Lock::try_acquire(&self.blobs.join("lock"))? else { return Ok(gone) };
        let mut used = HashSet::new();
        for digest in self.digests()? {
            let path = self.directory(&digest).join(MANIFEST);
            used.insert(digest.hex());
            let Some(bytes) = read_verified(&path, digest)? else {
                // What a damaged image refers to is not known: nothing may go.
                return Ok(gone);
            };
            let manifest: Manifest =
                serde_json::from_slice(&bytes).map_err(|source| ImageError::Json { path, source })?;
            used.insert(manifest.config.digest.hex());
            used.extend(manifest.layers.iter().map(|layer| layer.digest.hex()));
        }
        for directory in [self.blob_directory(), self.partial_directory()] {
            collect(&directory, &used, which, mode, &mut gone)?;
        }
        Ok(gone)
    }

    pub(super) fn partial_directory(&self) -> PathBuf {
        self.blobs.join("partial")
    }

    pub(in crate::image) fn blob_directory(&self) -> PathBuf {
        self.blobs.join("sha256")
    }
}

/// Removes the files of a directory that nobody needs.
fn collect(
    directory: &Path,
    used: &HashSet<String>,
    which: &Unused,
    mode: Pruning,
    gone: &mut Vec<(PathBuf, u64)>,
) -> Result<(), ImageError> {
    let failed = |source| ImageError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if used.contains(&name) {
            continue;
        }
        let metadata = entry.metadata().map_err(failed)?;
        let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
        let abandoned = name.starts_with(TEMPORARY_PREFIX) || age.is_some_and(|age| age > ABANDONED);
        let goes = match which {
            Unused::Abandoned => abandoned,
            Unused::Of(blobs) => abandoned || blobs.contains(&name),
            Unused::All => true,
        };
        if goes {
            let path = entry.path();
            if mode == Pruning::Real {
                std::fs::remove_file(&path)
                    .map_err(|source| ImageError::Remove { path: path.clone(), source })?;
            }
            gone.push((path, metadata.len()));
        }
    }
    Ok(())
}

impl BlobAdder {
    /// Where a blob is, or will be.
    pub(in crate::image) fn path_of(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    /// Goes on with a blob where whoever began it stopped; `None` where it is whole. Waits while
    /// another process fetches it.
    pub(in crate::image) fn resume(&self, digest: &Digest) -> Result<Option<PartialBlob>, ImageError> {
        PartialBlob::open(self.partial.join(digest.hex()), self.path_of(digest))
    }

    pub(in crate::image) fn create(&self) -> Result<BlobWriter, ImageError> {
        let temporary = tempfile::Builder::new()
            .prefix(TEMPORARY_PREFIX)
            .tempfile_in(&self.directory)
            .map_err(|source| ImageError::Write { path: self.directory.clone(), source })?;
        let directory = self.directory.clone();
        Ok(BlobWriter { directory, temporary, hasher: Hasher::default(), size: 0 })
    }

    pub(in crate::image) fn add(&self, bytes: &[u8]) -> Result<PendingBlob, ImageError> {
        let mut writer = self.create()?;
        let path = writer.path().to_owned();
        writer.write_all(bytes).map_err(|source| ImageError::Write { path, source })?;
        Ok(writer.finish())
    }
}

impl BlobWriter {
    pub(in crate::image) fn path(&self) -> &Path {
        self.temporary.path()
    }

    pub(in crate::image) fn finish(self) -> PendingBlob {
        let Self { directory, temporary, hasher, size } = self;
        PendingBlob { digest: hasher.finish(), size, directory, temporary: temporary.into_temp_path() }
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.temporary.write(bytes)?;
        self.hasher.write_all(&bytes[..count])?;
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PendingBlob {
    pub(in crate::image) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the blob its name.
    pub(in crate::image) fn commit(self) -> Result<(), ImageError> {
        let path = self.directory.join(self.digest.hex());
        let failed = |source| ImageError::Write { path: path.clone(), source };
        File::open(&self.temporary).and_then(|file| file.sync_all()).map_err(failed)?;
        self.temporary.persist(&path).map_err(|error| failed(error.error))
    }
}
