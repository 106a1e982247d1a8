//! What the store takes of the host's disk.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use super::Store;
use crate::{
    hash::Digest,
    image::{FullName, ImageError},
};

/// Files and what they take, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Files {
    /// How many.
    pub count: u64,
    /// What they take.
    pub bytes: u64,
}

/// The store, by what its files are for.
#[derive(Debug)]
pub struct Usage {
    /// Each image, by digest.
    pub images: Vec<ImageUsage>,
    /// Blobs.
    pub blobs: BlobUsage,
    /// Blobs that only images refer to which nobody needs, and those to which none does.
    pub reclaimable_blobs: Files,
    /// What may be deleted at any time.
    pub cache: Files,
}

/// An image, by what its files are for.
#[derive(Debug)]
pub struct ImageUsage {
    /// Its digest.
    pub digest: Digest,
    /// Its names.
    pub names: Vec<FullName>,
    /// Its id, where the image is not damaged.
    pub id: Option<Digest>,
    /// Its disk.
    pub disk: u64,
    /// Its blobs, also those that others have too.
    pub blobs: u64,
    /// Its blobs that others have too.
    pub shared: u64,
    /// Whether a VM or a snapshot needs it.
    pub in_use: bool,
}

/// Blobs, by who refers to them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BlobUsage {
    /// All that are whole.
    pub all: Files,
    /// Those that several images have.
    pub shared: Files,
    /// Those that no image has, and those that are not whole.
    pub unused: Files,
    /// Those that are not whole.
    pub partial: Files,
}

impl Files {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
    }
}

impl Store {
    /// What the store takes of the host's disk.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn usage(&self) -> Result<Usage, ImageError> {
        let referrers = self.referrers(&HashSet::new())?;
        let sizes: BTreeMap<_, _> = files(&self.blob_directory())?.into_iter().collect();
        let size = |blob: &String| sizes.get(blob).copied().unwrap_or(0);
        let mut images = Vec::new();
        for digest in self.digests()? {
            let mine = || referrers.iter().filter(|(_, by)| by.contains(&digest));
            images.push(ImageUsage {
                digest,
                names: self.names_of(&digest)?.into_iter().map(|(name, _)| name).collect(),
                id: self.usable(&digest)?.map(|image| image.id),
                disk: self.size_on_disk(&digest),
                blobs: mine().map(|(blob, _)| size(blob)).sum(),
                shared: mine().filter(|(_, by)| by.len() > 1).map(|(blob, _)| size(blob)).sum(),
                in_use: self.holder(&digest)?.is_some(),
            });
        }
        let idle = images.iter().filter(|image| !image.in_use).map(|image| image.digest).collect();
        let mut cache = Files::default();
        for (_, bytes) in files(&self.cache)? {
            cache.add(bytes);
        }
        Ok(Usage {
            blobs: self.blob_usage(&HashSet::new())?,
            reclaimable_blobs: self.blob_usage(&idle)?.unused,
            images,
            cache,
        })
    }

    /// Blobs, as they would be without some images.
    pub(super) fn blob_usage(&self, without: &HashSet<Digest>) -> Result<BlobUsage, ImageError> {
        let referrers = self.referrers(without)?;
        let mut usage = BlobUsage::default();
        for (name, bytes) in files(&self.blob_directory())? {
            usage.all.add(bytes);
            match referrers.get(&name).map_or(0, HashSet::len) {
                0 => usage.unused.add(bytes),
                1 => {}
                _ => usage.shared.add(bytes),
            }
        }
        for (_, bytes) in files(&self.partial_directory())? {
            usage.partial.add(bytes);
            usage.unused.add(bytes);
        }
        Ok(usage)
    }

    /// For each blob, by its hex digits, the images that have it.
    fn referrers(&self, without: &HashSet<Digest>) -> Result<BTreeMap<String, HashSet<Digest>>, ImageError> {
        let mut referrers: BTreeMap<String, HashSet<Digest>> = BTreeMap::new();
        for digest in self.digests()?.into_iter().filter(|digest| !without.contains(digest)) {
            for blob in self.blobs_of(&digest) {
                referrers.entry(blob).or_default().insert(digest);
            }
        }
        Ok(referrers)
    }
}

/// The files of a directory and what they take of the disk.
fn files(directory: &Path) -> Result<Vec<(String, u64)>, ImageError> {
    let failed = |source| ImageError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        match entry.metadata() {
            Ok(file) if file.is_file() => {
                files.push((entry.file_name().to_string_lossy().into_owned(), file.blocks() * 512));
            }
            Ok(_) => {}
            // Finished or removed since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(files)
}
