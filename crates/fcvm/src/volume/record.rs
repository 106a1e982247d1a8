//! Volumes of a snapshot: what a VM that goes on from it has to have again.

use std::path::PathBuf;

use fcvm_proto::VolumeKind;
use serde::{Deserialize, Serialize};

use super::{Cache, Map, Options, VolumeError, VolumeName, VolumeStore, map::found};

/// A volume, as a snapshot tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VolumeRecord {
    /// As the user knows it: `SOURCE:TARGET`.
    pub name: String,
    /// Where it was, resolved.
    pub path: PathBuf,
    /// Its name, of a named one.
    pub named: Option<VolumeName>,
    /// What it was.
    pub kind: VolumeKind,
    /// How the guest has it.
    pub options: Options,
}

impl VolumeRecord {
    /// The same directory or file, for another VM; of a named volume, what is in it now. `state` is the file with
    /// what the server of the first one knew of its client.
    ///
    /// # Errors
    /// Where it is not there any more, or something else.
    pub fn map(&self, state: Option<PathBuf>, store: &VolumeStore) -> Result<Map, VolumeError> {
        let Self { name, path, named, kind, options } = self;
        let (path, held) = match named {
            Some(volume) => {
                let (stored, held) = store.keep(volume)?;
                (stored.data, Some(held))
            }
            None => (path.clone(), None),
        };
        let target = name.rsplit_once(':').map_or(name.as_str(), |(_, target)| target);
        let (path, there) = found(&path, target)?;
        if there != *kind {
            return Err(VolumeError::Changed { path, target: target.into() });
        }
        let mut map = Map::new(name.clone(), path, there, options.clone());
        (map.named, map.held, map.state) = (named.clone(), held, state);
        Ok(map)
    }
}

impl Map {
    /// What a snapshot tells of it.
    ///
    /// # Errors
    /// Where its guest relies on being the only one who changes it.
    pub fn record(&self) -> Result<VolumeRecord, VolumeError> {
        let Self { name, path, kind, options, named, .. } = self;
        if options.cache == Cache::Exclusive && !options.read_only {
            return Err(VolumeError::Exclusive { volume: name.clone() });
        }
        let (name, path, options) = (name.clone(), path.clone(), options.clone());
        Ok(VolumeRecord { name, path, named: named.clone(), kind: *kind, options })
    }
}

/// The file of a snapshot with what the server of the volume of that number knew of its client.
#[must_use]
pub fn state_file(number: usize) -> String {
    format!("volume-{number}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::storage::DataDir;

    #[test]
    fn a_volume_is_had_again_where_it_is_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let store = VolumeStore::open(&DataDir::open(Some(path.join("data"))).unwrap());
        fs::create_dir(path.join("site")).unwrap();
        let site = fs::canonicalize(path.join("site")).unwrap();
        let name = format!("{}:/srv", site.display());
        let map = Map::new(name, site.clone(), VolumeKind::Directory, Options::default());
        let record = map.record().unwrap();
        let again = record.map(Some("state".into()), &store).unwrap();
        assert_eq!((again.path.as_path(), again.kind), (site.as_path(), VolumeKind::Directory));
        assert_eq!(again.record().unwrap(), record);

        fs::remove_dir(&site).unwrap();
        fs::write(&site, "").unwrap();
        assert!(matches!(record.map(None, &store), Err(VolumeError::Changed { .. })));
        fs::remove_file(&site).unwrap();
        assert!(matches!(record.map(None, &store), Err(VolumeError::Source { .. })));
    }

    #[test]
    fn a_named_volume_is_had_as_it_is_now_and_not_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(&DataDir::open(Some(directory.path().join("data"))).unwrap());
        let name: VolumeName = "data".parse().unwrap();
        let (stored, held) = store.take(&name).unwrap();
        let mut map = Map::new("data:/d".into(), stored.data, VolumeKind::Directory, Options::default());
        map.named = Some(name.clone());
        let record = map.record().unwrap();
        drop(held);
        let again = record.map(None, &store).unwrap();
        assert!(store.in_use(&name).unwrap());
        drop(again);
        store.remove(&name).unwrap();
        assert!(matches!(record.map(None, &store), Err(VolumeError::Unknown { .. })));
    }

    #[test]
    fn what_only_one_guest_may_change_is_in_no_snapshot() {
        let options = Options { cache: Cache::Exclusive, ..Options::default() };
        let map = |options| Map::new("/a:/b".into(), "/a".into(), VolumeKind::Directory, options);
        let error = map(options.clone()).record().unwrap_err();
        assert!(matches!(&error, VolumeError::Exclusive { .. }) && error.hint().is_some());
        assert!(map(Options { read_only: true, ..options }).record().is_ok());
    }
}
