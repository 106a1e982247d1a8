//! `names.json`: which image a name means.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::json;
use crate::{
    hash::Digest,
    image::{FullName, ImageError},
    storage::{AtomicFile, Lock},
};

const VERSION: u32 = 2;

/// What a name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameRecord {
    /// The image: its manifest's digest.
    pub image: Digest,
    /// Where it comes from.
    pub origin: Origin,
    /// The digest of what the registry has under the name: the manifest, or the index that lists
    /// it. Where it comes from an engine, the image's id there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Digest>,
}

/// Where an image comes from, and may have changed since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Imported, loaded or tagged here, or read from a path.
    Local,
    /// Pulled from the registry of its name.
    Registry,
    /// The storage of this user's Podman.
    Podman,
    /// A Docker engine.
    Docker,
}

impl NameRecord {
    /// Of an image that has no other place than this store.
    #[must_use]
    pub fn local(image: Digest) -> Self {
        Self { image, origin: Origin::Local, upstream: None }
    }
}

/// Names and what they mean.
pub(super) type NameMap = BTreeMap<FullName, NameRecord>;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NamesFile {
    version: u32,
    names: NameMap,
}

/// Reads the names as they are right now: the file is replaced, never changed.
pub(super) fn read(images: &Path) -> Result<NameMap, ImageError> {
    let file: Option<NamesFile> = json::read_versioned(&path(images), VERSION, json::MAX_NAMES)?;
    Ok(file.map(|file| file.names).unwrap_or_default())
}

/// The names, while nobody else can change them.
pub(super) struct LockedNames {
    images: PathBuf,
    names: NameMap,
    _lock: Lock,
}

impl LockedNames {
    pub(super) fn lock(images: &Path) -> Result<Self, ImageError> {
        let lock = Lock::acquire(&images.join("names.lock"), || tracing::debug!("waiting for names.lock"))?;
        Ok(Self { images: images.to_owned(), names: read(images)?, _lock: lock })
    }

    pub(super) fn names_of(&self, digest: &Digest) -> Vec<FullName> {
        self.names.iter().filter(|(_, of)| of.image == *digest).map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn get(&self, name: &FullName) -> Option<NameRecord> {
        self.names.get(name).copied()
    }

    /// Changes the names, and writes them where that made a difference.
    pub(super) fn update<T>(&mut self, change: impl FnOnce(&mut NameMap) -> T) -> Result<(), ImageError> {
        let mut names = self.names.clone();
        change(&mut names);
        if names == self.names {
            return Ok(());
        }
        let path = path(&self.images);
        let file = NamesFile { version: VERSION, names };
        let bytes = serde_json::to_vec_pretty(&file)
            .map_err(|source| ImageError::Json { path: path.clone(), source })?;
        AtomicFile::write(&path, &bytes).map_err(|source| ImageError::Write { path, source })?;
        self.names = file.names;
        Ok(())
    }
}

fn path(images: &Path) -> PathBuf {
    images.join("names.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_file_is_left_alone() {
        let images = tempfile::tempdir().unwrap();
        let path = path(images.path());
        std::fs::write(&path, r#"{"version":3,"planets":{}}"#).unwrap();
        let error = LockedNames::lock(images.path()).err().unwrap();
        assert!(matches!(error, ImageError::TooNew { found: 3, .. }), "{error:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), r#"{"version":3,"planets":{}}"#);
    }

    #[test]
    fn names_json_v2_is_frozen() {
        let images = tempfile::tempdir().unwrap();
        let name: FullName = "localhost/a:b".parse().unwrap();
        let mut names = LockedNames::lock(images.path()).unwrap();
        let digest = Digest::of(b"");
        let record = NameRecord { image: digest, origin: Origin::Registry, upstream: Some(digest) };
        names.update(|names| names.insert(name.clone(), record)).unwrap();
        let text = std::fs::read_to_string(path(images.path())).unwrap();
        let expected = format!(
            r#"{{"version":2,"names":{{"localhost/a:b":{{"image":"{digest}","origin":"registry","upstream":"{digest}"}}}}}}"#
        );
        assert_eq!(text.split_whitespace().collect::<String>(), expected);
        assert_eq!(read(images.path()).unwrap().get(&name), Some(&record));
    }
}
