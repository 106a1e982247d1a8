//! All that the store knows of an image.

use super::{
    Store,
    image::{Loaded, MANIFEST, StoredImage, read_verified},
    names::{self, NameRecord},
};
use crate::{
    hash::Digest,
    image::{FullName, ImageError, ImageRef, spec::Manifest},
    output::Printer,
};

/// An image with its names and its manifest.
#[derive(Debug, Clone)]
pub struct Details {
    /// The image.
    pub image: StoredImage,
    /// Its names, in order, and where they come from.
    pub names: Vec<(FullName, NameRecord)>,
    /// Its manifest.
    pub manifest: Manifest,
}

impl Store {
    /// The image of a name or id in the store.
    ///
    /// # Errors
    /// Where there is none, or an id is ambiguous.
    pub fn lookup(&self, image: &ImageRef) -> Result<Digest, ImageError> {
        let found = match image {
            ImageRef::Name(name) => self.find(name)?,
            ImageRef::Id(id) => self.find_id(id)?,
            // What lies elsewhere is no image of the store.
            _ => None,
        };
        found.ok_or_else(|| ImageError::Unknown { name: image.to_string() })
    }

    /// All that is known of a stored image; a disk that is outdated is made anew where that can be.
    ///
    /// # Errors
    /// Where it is not there or is damaged.
    pub fn details(&self, digest: &Digest, printer: &Printer) -> Result<Details, ImageError> {
        let image = self.get(digest, printer)?;
        Ok(Details { image, names: self.names_of(digest)?, manifest: self.manifest(digest)? })
    }

    /// The names of an image, in order.
    pub(super) fn names_of(&self, digest: &Digest) -> Result<Vec<(FullName, NameRecord)>, ImageError> {
        let names = names::read(&self.images)?;
        Ok(names.into_iter().filter(|(_, of)| of.image == *digest).collect())
    }

    /// The manifest of a stored image.
    pub(super) fn manifest(&self, digest: &Digest) -> Result<Manifest, ImageError> {
        let path = self.directory(digest).join(MANIFEST);
        match read_verified(&path, *digest)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|source| ImageError::Json { path, source }),
            None => Err(ImageError::Corrupt { path }),
        }
    }

    /// The image, as far as it can be loaded.
    pub(super) fn usable(&self, digest: &Digest) -> Result<Option<StoredImage>, ImageError> {
        match self.load(digest) {
            Ok(Loaded::Ready(image)) => Ok(Some(*image)),
            Ok(Loaded::Absent | Loaded::Unusable { .. }) | Err(ImageError::Json { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
