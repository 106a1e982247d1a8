//! The entries: found, used, removed by age and by size.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use crate::{
    hash::Digest,
    image::Store as Images,
    snapshot::{Host, Listed, MANIFEST, Snapshot, SnapshotError, SnapshotTag, Store},
    storage::{DataDir, Lock, LockError},
};

/// Below the data directory's cache.
const DIRECTORY: &str = "warm";
/// What could not be prepared, beside it.
const FAILED: &str = "warm-failed";
/// Held by who prepares a machine: one at a time is load enough.
const LOCK: &str = "warm.lock";

/// Prepared machines.
#[derive(Debug)]
pub struct Cache {
    store: Store,
    root: PathBuf,
    data: DataDir,
}

/// How much there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of the host's disk, all together; what was used least recently goes first.
    pub bytes: Option<u64>,
    /// Since an entry was used last.
    pub age: Option<Duration>,
}

/// An entry, and when it was used last.
#[derive(Debug)]
pub struct Entry {
    /// What it is.
    pub listed: Listed,
    /// By a run; at first when it was made.
    pub used: SystemTime,
}

impl Cache {
    /// That of a data directory.
    #[must_use]
    pub fn open(data: &DataDir) -> Self {
        let root = data.cache().join(DIRECTORY);
        Self { store: Store::kept_in(root.clone(), data), root, data: data.clone() }
    }

    /// Where entries are.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The entry of a key, where there is one that can be used: one that cannot is removed.
    #[must_use]
    pub fn find(&self, key: &SnapshotTag, host: &Host) -> Option<Snapshot> {
        let found = self.store.get(key).and_then(|entry| entry.check(host).map(|()| entry));
        match found {
            Ok(entry) => {
                self.touch(key);
                Some(entry)
            }
            Err(SnapshotError::Unknown { .. }) => None,
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(error = format!("{error:#}"), "a prepared VM is unusable, and goes");
                self.discard(key);
                None
            }
        }
    }

    /// Removes an entry that is not to be used again. Where others use it, it goes another time.
    pub fn discard(&self, key: &SnapshotTag) {
        match self.store.remove(key) {
            Ok(()) | Err(SnapshotError::Unknown { .. }) => {}
            Err(error) => tracing::debug!(%error, "a prepared VM stays"),
        }
    }

    /// The same of an entry that this process has used. Others who use it have their part of it still: after them,
    /// the next command removes it.
    pub fn discard_used(&self, entry: Snapshot) {
        let abandoned = self.store.abandon(&entry);
        drop(entry);
        if let Err(error) = abandoned.and_then(|()| self.store.collect_garbage().map(drop)) {
            tracing::debug!(%error, "a prepared VM stays");
        }
    }

    /// Takes the right to prepare a machine, unless another process does.
    ///
    /// # Errors
    /// Where the lock cannot be had.
    pub fn begin(&self) -> Result<Option<Lock>, LockError> {
        Lock::try_acquire(&self.data.state().join(LOCK))
    }

    /// The same, when others have done.
    ///
    /// # Errors
    /// Where the lock cannot be had.
    pub fn begin_after(&self, waiting: impl FnOnce()) -> Result<Lock, LockError> {
        Lock::acquire(&self.data.state().join(LOCK), waiting)
    }

    /// Remembers that a machine could not be prepared, so that it is not tried after every run.
    pub fn failed(&self, key: &SnapshotTag) {
        let directory = self.data.cache().join(FAILED);
        let marked = fs::create_dir_all(&directory).and_then(|()| File::create(directory.join(key.as_str())));
        if let Err(error) = marked {
            tracing::debug!(%error, "not remembered");
        }
    }

    /// Forgets that it could not be prepared before.
    pub fn has_succeeded(&self, key: &SnapshotTag) {
        match fs::remove_file(self.data.cache().join(FAILED).join(key.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "an old failure is remembered");
            }
            _ => {}
        }
    }

    /// Whether a machine could not be prepared, since the entries were pruned by age.
    #[must_use]
    pub fn has_failed(&self, key: &SnapshotTag) -> bool {
        self.data.cache().join(FAILED).join(key.as_str()).exists()
    }

    /// All entries, those first that were used least recently.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Entry>, SnapshotError> {
        let used = |listed: &Listed| {
            let manifest = fs::metadata(self.manifest(&listed.tag));
            manifest.and_then(|manifest| manifest.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
        };
        let mut entries: Vec<_> =
            self.store.list()?.into_iter().map(|listed| Entry { used: used(&listed), listed }).collect();
        entries.sort_by_key(|entry| entry.used);
        Ok(entries)
    }

    /// Removes what is too old, too much, damaged, or of an image that is gone; what that was, and its bytes. What
    /// is used stays.
    ///
    /// # Errors
    /// Where the directory cannot be read, or an entry not be removed.
    pub fn prune(&self, limits: Limits) -> Result<Vec<(SnapshotTag, u64)>, SnapshotError> {
        let images = Images::open(&self.data);
        self.prune_with(limits, |image| images.ready(image).is_ok_and(|image| image.is_some()))
    }

    fn prune_with(
        &self,
        limits: Limits,
        is_there: impl Fn(&Digest) -> bool,
    ) -> Result<Vec<(SnapshotTag, u64)>, SnapshotError> {
        let now = SystemTime::now();
        let is_old = |used: SystemTime| {
            limits.age.is_some_and(|age| now.duration_since(used).is_ok_and(|since| since > age))
        };
        let entries = self.list()?;
        let mut bytes: u64 = entries.iter().map(|entry| entry.listed.allocated).sum();
        let mut removed = Vec::new();
        for Entry { listed, used } in entries {
            let useful = listed.manifest.as_ref().is_ok_and(|manifest| is_there(&manifest.image.digest));
            if useful && !is_old(used) && limits.bytes.is_none_or(|most| bytes <= most) {
                continue;
            }
            match self.store.remove(&listed.tag) {
                Ok(()) => {
                    bytes -= listed.allocated;
                    removed.push((listed.tag, listed.allocated));
                }
                Err(SnapshotError::Unknown { .. } | SnapshotError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let failed = fs::read_dir(self.data.cache().join(FAILED)).into_iter().flatten().flatten();
        for mark in failed {
            let made = mark.metadata().and_then(|mark| mark.modified());
            if made.is_ok_and(is_old)
                && let Err(error) = fs::remove_file(mark.path())
            {
                tracing::debug!(%error, "it stays");
            }
        }
        Ok(removed)
    }

    /// It was used now.
    fn touch(&self, key: &SnapshotTag) {
        let touched =
            File::open(self.manifest(key)).and_then(|manifest| manifest.set_modified(SystemTime::now()));
        if let Err(error) = touched {
            tracing::debug!(%error, "when it was used is not known");
        }
    }

    fn manifest(&self, key: &SnapshotTag) -> PathBuf {
        self.root.join(key.as_str()).join(MANIFEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::{host, make, tag};

    const DAY: Duration = Duration::from_secs(86400);
    const ANY: Limits = Limits { bytes: None, age: None };

    /// A cache with these entries, each used a day after the one before, the last one today.
    fn cache(keys: &[&str]) -> (tempfile::TempDir, Cache) {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&DataDir::open(Some(place.path().join("data"))).unwrap());
        for (days, key) in keys.iter().rev().enumerate() {
            make(cache.store(), key);
            let used = SystemTime::now() - DAY * u32::try_from(days).unwrap();
            File::open(cache.manifest(&tag(key))).unwrap().set_modified(used).unwrap();
        }
        (place, cache)
    }

    fn left(cache: &Cache) -> Vec<String> {
        cache.list().unwrap().iter().map(|entry| entry.listed.tag.to_string()).collect()
    }

    #[test]
    fn what_was_used_least_recently_goes_first_and_only_as_much_as_must() {
        let (_place, cache) = cache(&["a", "b", "c"]);
        assert_eq!(left(&cache), ["a", "b", "c"]);
        assert!(cache.prune_with(ANY, |_| true).unwrap().is_empty());
        let one = cache.list().unwrap()[0].listed.allocated;
        // Who is used is the last one from now on.
        assert!(cache.find(&tag("a"), &host()).is_some());
        assert_eq!(left(&cache), ["b", "c", "a"]);
        let two = Limits { bytes: Some(2 * one), age: None };
        assert_eq!(cache.prune_with(two, |_| true).unwrap(), [(tag("b"), one)]);
        let young = Limits { bytes: None, age: Some(DAY / 2) };
        make(cache.store(), "d");
        File::open(cache.manifest(&tag("d"))).unwrap().set_modified(SystemTime::now() - DAY).unwrap();
        assert_eq!(cache.prune_with(young, |_| true).unwrap(), [(tag("d"), one)]);
        assert_eq!(left(&cache), ["c", "a"]);
        assert_eq!(cache.prune_with(ANY, |_| false).unwrap().len(), 2);
    }

    #[test]
    fn what_is_used_stays_and_what_is_damaged_goes() {
        let (_place, cache) = cache(&["a", "b"]);
        let used = cache.find(&tag("a"), &host()).unwrap();
        let none = Limits { bytes: Some(0), age: None };
        assert_eq!(cache.prune_with(none, |_| true).unwrap().len(), 1);
        // Nobody goes on from it any more, and its files are there until its last user ends.
        let other = cache.find(&tag("a"), &host()).unwrap();
        cache.discard_used(used);
        assert!(cache.find(&tag("a"), &host()).is_none());
        assert!(cache.store().garbage().unwrap().is_empty());
        drop(other);
        assert_eq!(cache.store().collect_garbage().unwrap().len(), 1);
        make(cache.store(), "b");
        cache.discard_used(cache.find(&tag("b"), &host()).unwrap());
        assert!(cache.store().collect_garbage().unwrap().is_empty(), "it is gone with its only user");

        make(cache.store(), "c");
        fs::remove_file(cache.store().get(&tag("c")).unwrap().path(crate::snapshot::MEMORY)).unwrap();
        assert!(cache.find(&tag("c"), &host()).is_none());
        assert!(left(&cache).is_empty());
        assert!(!cache.has_failed(&tag("c")));
        cache.failed(&tag("c"));
        assert!(cache.has_failed(&tag("c")));
        cache.has_succeeded(&tag("c"));
        assert!(!cache.has_failed(&tag("c")));
    }

    #[test]
    fn one_at_a_time_prepares() {
        let (_place, cache) = cache(&[]);
        let lock = cache.begin().unwrap().unwrap();
        assert!(cache.begin().unwrap().is_none());
        drop(lock);
        assert!(cache.begin().unwrap().is_some());
    }
}
