//! Removing what nobody needs.

use std::{collections::HashSet, os::unix::fs::MetadataExt as _};

use super::{Holder, Store, names::LockedNames};
use crate::{
    hash::Digest,
    image::{FullName, ImageError},
    storage::Lock,
};

/// Which images go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prunable {
    /// Those without names.
    Unnamed,
    /// All that no VM uses.
    Unused,
}

/// What an image must be to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Stored before that many seconds since 1970.
    StoredBefore(u64),
    /// Its files come to more bytes.
    Larger(u64),
    /// Its files come to fewer bytes.
    Smaller(u64),
}

/// Whether anything is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pruning {
    /// Nothing: what would go is told.
    Dry,
    /// It is removed.
    Real,
}

/// What went, or would go.
#[derive(Debug, Default)]
pub struct Pruned {
    /// The images and the names they had.
    pub images: Vec<(Digest, Vec<FullName>)>,
    /// Images that somebody needs, which stay.
    pub in_use: Vec<(Digest, Holder)>,
    /// Bytes of disks.
    pub disks: u64,
    /// Bytes of blobs, unfinished downloads among them.
    pub blobs: u64,
}

impl Store {
    /// Removes images that nobody needs and pass all filters, then blobs that no image refers to.
    ///
    /// # Errors
    /// Where the store cannot be read, or something cannot be removed.
    pub fn prune(&self, which: Prunable, filters: &[Filter], mode: Pruning) -> Result<Pruned, ImageError> {
        let mut pruned = Pruned::default();
        let mut gone = HashSet::new();
        for digest in self.digests()? {
            let wanted = self.names_of(&digest)?.is_empty() || which == Prunable::Unused;
            if !wanted || !self.passes(&digest, filters)? {
                continue;
            }
            let size = self.size_on_disk(&digest);
            let names = match mode {
                Pruning::Dry => match self.holder(&digest)? {
                    Some(holder) => Err(holder),
                    None => Ok(self.names_of(&digest)?.into_iter().map(|(name, _)| name).collect()),
                },
                Pruning::Real => match self.remove_unused(&digest, which) {
                    Ok(Some(names)) => Ok(names),
                    Ok(None) => Err(Holder::Vm),
                    Err(ImageError::InUse { holder, .. }) => Err(holder),
                    Err(error) => return Err(error),
                },
            };
            match names {
                Ok(names) => {
                    gone.insert(digest);
                    pruned.disks += size;
                    pruned.images.push((digest, names));
                }
                Err(holder) => pruned.in_use.push((digest, holder)),
            }
        }
        pruned.blobs = match mode {
            Pruning::Dry => self.blob_usage(&gone)?.unused.bytes,
            Pruning::Real => self.remove_unused_blobs()?,
        };
        Ok(pruned)
    }

    fn passes(&self, digest: &Digest, filters: &[Filter]) -> Result<bool, ImageError> {
        if filters.is_empty() {
            return Ok(true);
        }
        // Nothing is known of a damaged one.
        let Some(image) = self.usable(digest)? else { return Ok(false) };
        Ok(filters.iter().all(|filter| match *filter {
            Filter::StoredBefore(time) => image.stored < time,
            Filter::Larger(size) => image.unpacked > size,
            Filter::Smaller(size) => image.unpacked < size,
        }))
    }

    /// Removes an image, unless it is in use, or got a name in the meantime; the names it had.
    fn remove_unused(&self, digest: &Digest, which: Prunable) -> Result<Option<Vec<FullName>>, ImageError> {
        // Whoever makes it is about to use it.
        let Some(_lock) = Lock::try_acquire(&self.lock_path(digest))? else { return Ok(None) };
        let mut names = LockedNames::lock(&self.images)?;
        let all = names.names_of(digest);
        if which == Prunable::Unnamed && !all.is_empty() {
            return Ok(None);
        }
        let _use = self.own(digest, &digest.to_string())?;
        names.update(|names| names.retain(|_, of| of.image != *digest))?;
        self.discard(digest)?;
        Ok(Some(all))
    }

    /// What an image's own files take of the host's disk.
    pub(super) fn size_on_disk(&self, digest: &Digest) -> u64 {
        let files = std::fs::read_dir(self.directory(digest)).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512).sum()
    }
}
