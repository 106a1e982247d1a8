//! Named volumes.
//!
//! ```text
//! volumes/NAME/_data        what is in it
//! volumes/NAME/volume.json  its record, written last
//! volumes/NAME/lock         shared by the VMs that have it
//! volumes/.lock             whoever makes, takes or removes one
//! volumes/.tmp-NAME         half made, or half removed
//! ```

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Server, VolumeError};
use crate::{
    state::{MAX_NAME, is_name},
    storage::{AtomicFile, DataDir, Lock, TEMPORARY_PREFIX},
};

/// Of the record.
const FORMAT: u32 = 1;
const RECORD: &str = "volume.json";
const DATA: &str = "_data";
const LOCK: &str = "lock";

/// A volume's name, as Podman allows them: letters, digits, `_`, `.`, `-`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

impl FromStr for VolumeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_name(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!(
                "`{text}` is no volume's name: up to {MAX_NAME} letters, digits, `_`, `.` or `-`, \
                 the first a letter or digit"
            ))
        }
    }
}

impl VolumeName {
    /// A name for who gives none: 64 random hexadecimal digits, as Podman's.
    ///
    /// # Errors
    /// Where the kernel has no random bytes.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; MAX_NAME / 2];
        crate::random::fill(&mut bytes)?;
        Ok(Self(hex::encode(bytes)))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VolumeName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

/// What is recorded of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    created: Timestamp,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// A volume that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name.
    pub name: VolumeName,
    /// What is in it.
    pub data: PathBuf,
    /// When it was made.
    pub created: Timestamp,
    /// The user's.
    pub labels: BTreeMap<String, String>,
}

/// One of all volumes.
#[derive(Debug)]
pub struct Listed {
    /// Its name.
    pub name: VolumeName,
    /// What is known of it, or why that cannot be read.
    pub volume: Result<Stored, VolumeError>,
}

/// A volume that cannot be removed while this lives.
#[derive(Debug)]
pub struct Held {
    _lock: Lock,
}

/// The named volumes of a data directory.
#[derive(Debug)]
pub struct VolumeStore {
    root: PathBuf,
}

impl VolumeStore {
    /// Those of this data directory.
    #[must_use]
    pub fn open(data: &DataDir) -> Self {
        Self { root: data.volumes() }
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// Where there is one of that name, or it cannot be made.
    pub fn create(&self, name: &VolumeName, labels: BTreeMap<String, String>) -> Result<Stored, VolumeError> {
        let _alone = self.lock()?;
        match self.get(name) {
            Err(VolumeError::Unknown { .. }) => self.make(name, labels),
            Ok(_) => Err(VolumeError::Exists { name: name.clone() }),
            Err(error) => Err(error),
        }
    }

    /// Takes a volume, and makes it where it is not there.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn take(&self, name: &VolumeName) -> Result<(Stored, Held), VolumeError> {
        let _alone = self.lock()?;
        let stored = match self.get(name) {
            Err(VolumeError::Unknown { .. }) => self.make(name, BTreeMap::new())?,
            stored => stored?,
        };
        let lock = Lock::share(&self.directory(name).join(LOCK))?;
        Ok((stored, Held { _lock: lock }))
    }

    /// Takes a volume that is there.
    ///
    /// # Errors
    /// Where it is not.
    pub fn keep(&self, name: &VolumeName) -> Result<(Stored, Held), VolumeError> {
        let _alone = self.lock()?;
        let stored = self.get(name)?;
        let lock = Lock::share(&self.directory(name).join(LOCK))?;
        Ok((stored, Held { _lock: lock }))
    }

    /// A volume that is there.
    ///
    /// # Errors
    /// Where it is not, or its record cannot be read.
    pub fn get(&self, name: &VolumeName) -> Result<Stored, VolumeError> {
        let directory = self.directory(name);
        let path = directory.join(RECORD);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(VolumeError::Unknown { name: name.clone() });
            }
            bytes => bytes.map_err(VolumeError::store("read", &path))?,
        };
        let record: Record = serde_json::from_slice(&bytes)
            .map_err(io::Error::from)
            .and_then(|record: Record| match record.format {
                FORMAT => Ok(record),
                other => Err(io::Error::other(format!("it has format {other}, this fcvm knows {FORMAT}"))),
            })
            .map_err(VolumeError::store("understand", &path))?;
        let Record { created, labels, .. } = record;
        Ok(Stored { name: name.clone(), data: directory.join(DATA), created, labels })
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, VolumeError> {
        let names = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(VolumeError::store("read", &self.root))?,
        };
        let mut all = Vec::new();
        for entry in names {
            let entry = entry.map_err(VolumeError::store("read", &self.root))?;
            let Some(Ok(name)) = entry.file_name().to_str().map(str::parse::<VolumeName>) else { continue };
            match self.get(&name) {
                // Half made: it goes with the next that is made.
                Err(VolumeError::Unknown { .. }) => {}
                found => all.push(Listed { name, volume: found }),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Whether a VM has it.
    ///
    /// # Errors
    /// Where that cannot be found out.
    pub fn in_use(&self, name: &VolumeName) -> Result<bool, VolumeError> {
        let _alone = self.lock()?;
        Ok(Lock::try_acquire(&self.directory(name).join(LOCK))?.is_none())
    }

    /// Removes a volume with all that is in it.
    ///
    /// # Errors
    /// Where there is none, a VM has it, or it cannot be removed.
    pub fn remove(&self, name: &VolumeName) -> Result<(), VolumeError> {
        let doomed = {
            let _alone = self.lock()?;
            let directory = self.directory(name);
            if !directory.exists() {
                return Err(VolumeError::Unknown { name: name.clone() });
            }
            if Lock::try_acquire(&directory.join(LOCK))?.is_none() {
                return Err(VolumeError::InUse { name: name.clone() });
            }
            let doomed = self.temporary(name);
            sweep(&doomed)?;
            fs::rename(&directory, &doomed).map_err(VolumeError::store("remove", &directory))?;
            doomed
        };
        sweep(&doomed)
    }

    fn make(&self, name: &VolumeName, labels: BTreeMap<String, String>) -> Result<Stored, VolumeError> {
        let (half, directory) = (self.temporary(name), self.directory(name));
        sweep(&half)?;
        let data = half.join(DATA);
        fs::create_dir_all(&data).map_err(VolumeError::store("make", &data))?;
        let record = Record { format: FORMAT, created: Timestamp::now(), labels };
        let path = half.join(RECORD);
        serde_json::to_vec_pretty(&record)
            .map_err(io::Error::from)
            .and_then(|bytes| AtomicFile::write(&path, &bytes))
            .map_err(VolumeError::store("write", &path))?;
        fs::rename(&half, &directory).map_err(VolumeError::store("make", &directory))?;
        self.get(name)
    }

    fn lock(&self) -> Result<Lock, VolumeError> {
        Ok(Lock::acquire(&self.root.join(".lock"), || tracing::debug!("waiting for the volumes"))?)
    }

    fn directory(&self, name: &VolumeName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn temporary(&self, name: &VolumeName) -> PathBuf {
        self.root.join(format!("{TEMPORARY_PREFIX}{name}"))
    }
}

/// Removes what somebody began.
fn sweep(path: &Path) -> Result<(), VolumeError> {
    match fs::remove_dir_all(path) {
        // Parts of it belong to subordinate ids of this user.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Server::remove(path),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(VolumeError::store("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, VolumeStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = VolumeStore { root: directory.path().join("volumes") };
        (directory, store)
    }

    fn name(text: &str) -> VolumeName {
        text.parse().unwrap()
    }

    #[test]
    fn a_volume_is_made_once_and_stays_until_it_is_removed() {
        let (_directory, store) = store();
        assert!(store.list().unwrap().is_empty());
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let made = store.create(&name("data"), labels).unwrap();
        fs::write(made.data.join("file"), "x").unwrap();
        assert!(matches!(store.create(&name("data"), BTreeMap::new()), Err(VolumeError::Exists { .. })));
        assert_eq!(store.take(&name("data")).unwrap().0, made);
        store.take(&name("other")).unwrap();
        let names: Vec<_> = store.list().unwrap().into_iter().map(|listed| listed.name).collect();
        assert_eq!(names, [name("data"), name("other")]);
        store.remove(&name("data")).unwrap();
        assert!(matches!(store.remove(&name("data")), Err(VolumeError::Unknown { .. })));
        assert!(fs::read_dir(store.take(&name("data")).unwrap().0.data).unwrap().next().is_none());
    }

    #[test]
    fn one_that_a_vm_has_stays() {
        let (_directory, store) = store();
        let (_, held) = store.take(&name("data")).unwrap();
        let _second = store.take(&name("data")).unwrap();
        assert!(store.in_use(&name("data")).unwrap());
        assert!(matches!(store.remove(&name("data")), Err(VolumeError::InUse { .. })));
        drop((held, _second));
        assert!(!store.in_use(&name("data")).unwrap());
        store.remove(&name("data")).unwrap();
    }

    #[test]
    fn what_a_crash_left_is_no_volume_and_in_nobodys_way() {
        let (_directory, store) = store();
        fs::create_dir_all(store.root.join(".tmp-data/_data/x")).unwrap();
        fs::create_dir_all(store.root.join("half")).unwrap();
        assert!(store.list().unwrap().is_empty());
        let made = store.create(&name("data"), BTreeMap::new()).unwrap();
        assert!(fs::read_dir(made.data).unwrap().next().is_none());
    }

    #[test]
    fn names_are_podmans() {
        for bad in ["", "-a", ".a", "a/b", "a b", "a:b", &"x".repeat(65)] {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
        assert_eq!(VolumeName::generate().unwrap().as_str().len(), 64);
    }
}
