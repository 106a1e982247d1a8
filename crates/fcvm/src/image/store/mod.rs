//! The images of a data directory.
//!
//! ```text
//! images/names.json            name -> manifest digest
//! images/HEX/manifest.json     the image, by its manifest's digest
//!            config.json
//!            disk.ext4         what VMs mount
//!            image.json        id, sizes, and how to tell that disk.ext4 is whole
//!            lock              shared by the VMs that use it
//! images/locks/HEX             held by who makes or removes the image
//! images/.tmp-HEX-*            being made or removed; left over once that lock is free
//! blobs/sha256/HEX             layers, manifests, configurations of images pulled, loaded or imported
//! blobs/partial/HEX            the beginning of one, locked by who fetches it
//! blobs/lock                   shared by who adds blobs, owned by who collects them
//! ```
//!
//! An image's directory is made under a temporary name and renamed when it is
//! complete, so that it is there whole or not at all:
//!
//! ```text
//! absent -- build --> .tmp-HEX-* -- rename --> ready -- rm --> .tmp-HEX-* --> absent
//!                     (killed: removed by the next build or gc)
//! ready -- disk differs from image.json, or is of an older format --> made anew
//! ```
//! A pull that was interrupted leaves blobs that no image refers to: they stay for a day, for the
//! next pull to go on with.
//!
//! Locks are taken in the order `blobs/lock` (shared), `locks/HEX`, `names.lock`, `HEX/lock`. Who
//! wants `blobs/lock` alone does not wait for it where it has another.

mod blobs;
mod build;
mod details;
mod holder;
mod image;
mod json;
mod names;
mod partial;
mod prune;
mod record;
mod remove;
#[cfg(test)]
mod tests;
mod usage;
mod verify;

use std::path::PathBuf;

pub(super) use blobs::{BlobAdder, PendingBlob};
pub use details::Details;
pub use holder::Holder;
pub use image::{StoredImage, UseLock};
pub use names::{NameRecord, Origin};
pub(super) use partial::PartialBlob;
pub use prune::{Filter, Prunable, Pruned, Pruning};
pub use remove::{Force, Removed};
pub use usage::{BlobUsage, Files, ImageUsage, Usage};
pub use verify::{Damage, Outcome, Refetch, Repair, Wrong};

use self::{image::Loaded, names::LockedNames};
use super::{
    FullName, IdPrefix, ImageError, ImageName, ShortNames,
    disk::HostBuilder,
    registries::{Registries, RegistryFiles},
};
use crate::{hash::Digest, output::Printer, storage::DataDir};

/// The images of a data directory.
#[derive(Debug, Clone)]
pub struct Store {
    images: PathBuf,
    blobs: PathBuf,
    cache: PathBuf,
    snapshots: PathBuf,
    registries: RegistryFiles,
}

/// An image and the names it goes by.
#[derive(Debug)]
pub struct Listed {
    /// The manifest's digest.
    pub digest: Digest,
    /// All of its names.
    pub names: Vec<FullName>,
    /// The image, unless it is damaged.
    pub image: Result<StoredImage, ImageError>,
}

impl Store {
    /// The store of a data directory. Nothing is created before it is needed.
    #[must_use]
    pub fn open(data: &DataDir) -> Self {
        Self::with_registries(data, RegistryFiles::of_user())
    }

    /// The store of a data directory, with other configuration of registries than the user's.
    #[must_use]
    pub fn with_registries(data: &DataDir, registries: RegistryFiles) -> Self {
        Self {
            images: data.images(),
            blobs: data.blobs(),
            cache: data.cache(),
            snapshots: data.snapshots(),
            registries,
        }
    }

    /// Where archives that cannot be read at random are put for a while.
    pub(super) fn cache(&self) -> &std::path::Path {
        &self.cache
    }

    /// The image a name means: a local image's, then one of Docker Hub, then
    /// the beginning of an id.
    ///
    /// # Errors
    /// Where the store cannot be read, or the name begins several ids.
    pub fn find(&self, name: &ImageName) -> Result<Option<Digest>, ImageError> {
        match (self.find_name(name)?, name.as_id()) {
            (Some((_, of)), _) => Ok(Some(of.image)),
            (None, Some(id)) => self.find_id(&id),
            (None, None) => Ok(None),
        }
    }

    /// The name in full and the image that it means.
    ///
    /// # Errors
    /// Where the store or `registries.conf` cannot be read.
    pub fn find_name(&self, name: &ImageName) -> Result<Option<(FullName, NameRecord)>, ImageError> {
        let names = names::read(&self.images)?;
        let candidates = self.candidates(name)?;
        Ok(match name.digest() {
            None => candidates.into_iter().find_map(|name| names.get(&name).map(|of| (name.clone(), *of))),
            // A digest says which image; of the name only the repository counts.
            Some(digest) => names.into_iter().find(|(name, of)| {
                (of.image == digest || of.upstream == Some(digest))
                    && candidates.iter().any(|wanted| wanted.is_beside(name))
            }),
        })
    }

    /// How registries are reached.
    ///
    /// # Errors
    /// Where `registries.conf` cannot be read.
    pub fn registries(&self) -> Result<Registries, ImageError> {
        Ok(self.registries.load()?)
    }

    /// The image with that manifest, if it is there and whole.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn ready(&self, digest: &Digest) -> Result<Option<StoredImage>, ImageError> {
        match self.load(digest)? {
            Loaded::Ready(image) => Ok(Some(*image)),
            Loaded::Absent | Loaded::Unusable { .. } => Ok(None),
        }
    }

    /// What a full name means now.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn record_of(&self, name: &FullName) -> Result<Option<NameRecord>, ImageError> {
        Ok(names::read(&self.images)?.get(name).copied())
    }

    /// What a name may mean, best first.
    ///
    /// # Errors
    /// Where `registries.conf` cannot be read.
    pub fn candidates(&self, name: &ImageName) -> Result<Vec<FullName>, ImageError> {
        // It is of no use to a name that says its registry.
        if name.registry().is_some() {
            return Ok(name.candidates(&ShortNames::default()));
        }
        Ok(name.candidates(self.registries()?.short_names()))
    }

    /// The image whose id or digest begins so.
    ///
    /// # Errors
    /// Where the store cannot be read, or several images match.
    pub fn find_id(&self, id: &IdPrefix) -> Result<Option<Digest>, ImageError> {
        let mut found: Vec<(Digest, Digest)> = Vec::new();
        for digest in self.digests()? {
            // A damaged image has no other id than its digest, and can be removed by it.
            let own = self.record(&digest).ok().flatten().map_or(digest, |record| record.id);
            // The same configuration in another manifest is the same image to its user.
            let known = found.iter().any(|(_, id)| *id == own);
            if (id.matches(&own) || id.matches(&digest)) && !known {
                found.push((digest, own));
            }
        }
        match found.as_slice() {
            [] => Ok(None),
            [(digest, _)] => Ok(Some(*digest)),
            several => Err(ImageError::Ambiguous {
                name: id.to_string(),
                ids: several.iter().map(|(_, id)| *id).collect(),
            }),
        }
    }

    /// A stored image, its disk made anew from stored blobs where that is needed and possible.
    ///
    /// # Errors
    /// Where it is not there, or damaged and its layers are not in the store.
    pub fn get(&self, digest: &Digest, printer: &Printer) -> Result<StoredImage, ImageError> {
        match self.load(digest)? {
            Loaded::Ready(image) => Ok(*image),
            Loaded::Absent => Err(ImageError::Unknown { name: digest.to_string() }),
            Loaded::Unusable { path } => match self.blob_source(digest)? {
                Some(source) => {
                    tracing::warn!(path = %path.display(), "image disk is outdated or damaged; made anew");
                    self.ensure_disk(source, printer, &HostBuilder)
                }
                None => Err(ImageError::Corrupt { path }),
            },
        }
    }

    /// All images, by digest.
    ///
    /// # Errors
    /// Where the store cannot be read; a damaged image is no error of the list.
    pub fn list(&self) -> Result<Vec<Listed>, ImageError> {
        let names = names::read(&self.images)?;
        let mut list = Vec::new();
        for digest in self.digests()? {
            let image = match self.load(&digest) {
                Ok(Loaded::Ready(image)) => Ok(*image),
                Ok(Loaded::Absent) => continue,
                Ok(Loaded::Unusable { path }) => Err(ImageError::Corrupt { path }),
                Err(error) => Err(error),
            };
            let names =
                names.iter().filter(|(_, of)| of.image == digest).map(|(name, _)| name.clone()).collect();
            list.push(Listed { digest, names, image });
        }
        Ok(list)
    }

    /// Gives an image a name, taking it from any other.
    ///
    /// # Errors
    /// Where the image is gone, or names cannot be written.
    pub fn tag(&self, name: &FullName, record: NameRecord) -> Result<(), ImageError> {
        let mut names = LockedNames::lock(&self.images)?;
        if !self.directory(&record.image).is_dir() {
            return Err(ImageError::Unknown { name: record.image.to_string() });
        }
        names.update(|names| names.insert(name.clone(), record))
    }

    fn directory(&self, digest: &Digest) -> PathBuf {
        self.images.join(digest.hex())
    }

    fn lock_path(&self, digest: &Digest) -> PathBuf {
        self.images.join("locks").join(digest.hex())
    }

    /// The digests of all images, in order.
    fn digests(&self) -> Result<Vec<Digest>, ImageError> {
        let failed = |source| ImageError::Read { path: self.images.clone(), source };
        let entries = match std::fs::read_dir(&self.images) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut digests = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            digests.extend(name.to_str().and_then(|name| format!("sha256:{name}").parse::<Digest>().ok()));
        }
        digests.sort_unstable();
        Ok(digests)
    }
}
