//! Removing images and their names, and what crashes left.

use std::{collections::HashSet, io, path::PathBuf};

use super::{
    Pruning, Store,
    blobs::Unused,
    build::temporary_prefix,
    image::{MANIFEST, read_verified},
    names::LockedNames,
};
use crate::{
    hash::Digest,
    image::{FullName, ImageError, ImageRef, spec::Manifest},
    storage::{Lock, TEMPORARY_PREFIX},
};

/// Whether an image goes though it has several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// Only by its last name, or by its id where it has one name at most.
    No,
    /// By its id, with all of its names.
    Yes,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name; the image has others.
    Name(FullName),
    /// The image, by its digest, and the names it had.
    Image(Digest, Vec<FullName>),
}

impl Store {
    /// Removes an image: by name the name, and the image with its last one; by
    /// id the image with its name.
    ///
    /// # Errors
    /// Where there is none, a VM or a snapshot needs it, or an id has several names and `force` is not given.
    pub fn remove(&self, image: &ImageRef, force: Force) -> Result<Removed, ImageError> {
        let unknown = || ImageError::Unknown { name: image.to_string() };
        let (name, digest) = match image {
            ImageRef::Name(written) => match (self.find_name(written)?, written.as_id()) {
                (Some((name, of)), _) => (Some(name), of.image),
                (None, Some(id)) => (None, self.find_id(&id)?.ok_or_else(unknown)?),
                (None, None) => return Err(unknown()),
            },
            ImageRef::Id(id) => (None, self.find_id(id)?.ok_or_else(unknown)?),
            _ => return Err(unknown()),
        };
        let _lock = Lock::acquire(&self.lock_path(&digest), || {
            tracing::info!(%digest, "waiting for another fcvm that prepares the image");
        })?;
        let mut names = LockedNames::lock(&self.images)?;
        let all = names.names_of(&digest);
        if let Some(name) = name {
            if names.get(&name).map(|of| of.image) != Some(digest) {
                return Err(unknown());
            }
            if all.len() > 1 {
                names.update(|names| names.remove(&name))?;
                return Ok(Removed::Name(name));
            }
        } else if all.len() > 1 && force == Force::No {
            let names = all.iter().map(ToString::to_string).collect();
            return Err(ImageError::SeveralNames { name: image.to_string(), names });
        }
        let _use = self.own(&digest, &image.to_string())?;
        let blobs = self.blobs_of(&digest);
        names.update(|names| names.retain(|_, of| of.image != digest))?;
        self.discard(&digest)?;
        drop(names);
        self.collect_blobs(&Unused::Of(blobs), Pruning::Real)?;
        Ok(Removed::Image(digest, all))
    }

    /// Removes what was left by builds, imports and removals that were killed; what that was, or would be.
    ///
    /// # Errors
    /// Where something cannot be read or removed.
    pub fn gc(&self, mode: Pruning) -> Result<Vec<PathBuf>, ImageError> {
        let failed = |source| ImageError::Read { path: self.images.clone(), source };
        let entries = match std::fs::read_dir(&self.images) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut gone = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY_PREFIX)) else {
                continue;
            };
            let digest = rest.split('-').next().map(|hex| format!("sha256:{hex}").parse::<Digest>());
            let path = entry.path();
            let remove = |source| ImageError::Remove { path: path.clone(), source };
            if let Some(Ok(digest)) = digest {
                let Some(_lock) = Lock::try_acquire(&self.lock_path(&digest))? else { continue };
                if mode == Pruning::Real {
                    ignore_missing(std::fs::remove_dir_all(&path)).map_err(remove)?;
                }
            } else {
                // A file of names that was never renamed.
                let _lock = Lock::acquire(&self.images.join("names.lock"), || ())?;
                if mode == Pruning::Real {
                    ignore_missing(std::fs::remove_file(&path)).map_err(remove)?;
                }
            }
            gone.push(path);
        }
        gone.extend(self.collect_blobs(&Unused::Abandoned, mode)?.into_iter().map(|(path, _)| path));
        Ok(gone)
    }

    /// Removes all blobs that no image refers to, and unfinished ones; how many bytes that were.
    ///
    /// # Errors
    /// Where something cannot be read or removed.
    pub fn remove_unused_blobs(&self) -> Result<u64, ImageError> {
        let gone = self.collect_blobs(&Unused::All, Pruning::Real)?;
        Ok(gone.iter().map(|(_, bytes)| bytes).sum())
    }

    /// The names of the blobs an image refers to, as far as its manifest can be read.
    pub(super) fn blobs_of(&self, digest: &Digest) -> HashSet<String> {
        let manifest = read_verified(&self.directory(digest).join(MANIFEST), *digest).ok().flatten();
        let manifest = manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok());
        let mut blobs = HashSet::from([digest.hex()]);
        if let Some(Manifest { config, layers, .. }) = manifest {
            blobs.insert(config.digest.hex());
            blobs.extend(layers.iter().map(|layer| layer.digest.hex()));
        }
        blobs
    }

    /// Removes an image's directory, which is gone at once however long the removal takes.
    pub(super) fn discard(&self, digest: &Digest) -> Result<(), ImageError> {
        let path = self.directory(digest);
        let remove = |source| ImageError::Remove { path: path.clone(), source };
        let temporary = self.temporary(digest)?;
        ignore_missing(std::fs::rename(&path, temporary.path().join(temporary_prefix(digest))))
            .and_then(|()| temporary.close())
            .map_err(remove)
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
