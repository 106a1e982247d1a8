//! From what is meant to what is served: sources are found, named volumes taken.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use fcvm_proto::{Volume, VolumeKind, volume::MAX_VOLUMES};

use super::{Held, Mount, Options, Source, VolumeError, VolumeName, VolumeStore};
use crate::state::{MountKind, MountRecord};

/// A directory or file of the host that a guest shall have.
#[derive(Debug)]
pub struct Map {
    /// As the user knows it: `SOURCE:TARGET`.
    pub name: String,
    /// Where it is, resolved.
    pub path: PathBuf,
    /// What it is.
    pub kind: VolumeKind,
    /// How the guest has it.
    pub options: Options,
    /// Its name, of a named one.
    pub(super) named: Option<VolumeName>,
    /// That a named volume stays.
    pub(super) held: Option<Held>,
    /// What the server knew of its client that it is to go on for.
    pub(super) state: Option<PathBuf>,
}

impl Map {
    /// A directory or file of this name and path.
    #[must_use]
    pub fn new(name: String, path: PathBuf, kind: VolumeKind, options: Options) -> Self {
        Self { name, path, kind, options, named: None, held: None, state: None }
    }

    /// What the guest is told of it.
    #[must_use]
    pub fn volume(&self, lanes: u16) -> Volume {
        Volume { name: self.name.clone(), kind: self.kind, read_only: self.options.read_only, lanes }
    }
}

/// All that a container has beside its image.
#[derive(Debug, Default)]
pub struct Mounts {
    /// To be served.
    pub maps: Vec<Map>,
    /// Podman's `--volume` options in the guest.
    pub volumes: Vec<String>,
    /// Podman's `--mount` options in the guest.
    pub mounts: Vec<String>,
    /// Podman's own volumes in the guest, which it fills from the image: names, and which maps they are.
    pub filled: Vec<(String, u16)>,
    /// For the VM's record.
    pub records: Vec<MountRecord>,
}

impl Mounts {
    /// Finds everything; makes the named volumes that are not there.
    ///
    /// # Errors
    /// Where something is not there, or not fit.
    pub fn find<'a>(
        specs: impl IntoIterator<Item = &'a Mount>,
        store: &VolumeStore,
    ) -> Result<Self, VolumeError> {
        let mut all = Self::default();
        let mut targets = BTreeSet::new();
        for spec in specs {
            if !targets.insert(spec.target()) {
                return Err(VolumeError::Twice { target: spec.target().into() });
            }
            all.add(spec, store)?;
        }
        if all.maps.len() > MAX_VOLUMES {
            return Err(VolumeError::TooMany { count: all.maps.len() });
        }
        Ok(all)
    }

    fn add(&mut self, spec: &Mount, store: &VolumeStore) -> Result<(), VolumeError> {
        match spec {
            Mount::Anonymous { target, podman } => {
                // With options Podman wants a source, of which an anonymous volume has none.
                let options = podman.iter().map(|option| format!(",{option}")).collect::<String>();
                self.mounts.push(format!("type=volume,target={target}{options}"));
                self.record(MountKind::Volume, None, PathBuf::new(), target, &Options::default());
            }
            Mount::Tmpfs { target, text } => {
                self.mounts.push(text.clone());
                self.record(MountKind::Tmpfs, None, PathBuf::new(), target, &Options::default());
            }
            Mount::Host { source: Source::Path(path), target, options } => {
                let (found, kind) = found(path, target)?;
                self.record(MountKind::Bind, None, found.clone(), target, options);
                let name = format!("{}:{target}", path.display());
                self.map(Map::new(name, found, kind, options.clone()), target, None);
            }
            Mount::Host { source: Source::Named(name), target, options } => {
                let (stored, held) = store.take(name)?;
                let read = VolumeError::store("read", &stored.data);
                let empty = fs::read_dir(&stored.data).map_err(read)?.next().is_none();
                let podman = (empty && !options.no_copy).then(|| name.to_string());
                self.record(MountKind::Volume, Some(name.to_string()), stored.data.clone(), target, options);
                let mut map =
                    Map::new(format!("{name}:{target}"), stored.data, VolumeKind::Directory, options.clone());
                (map.named, map.held) = (Some(name.clone()), Some(held));
                self.map(map, target, podman);
            }
        }
        Ok(())
    }

    fn map(&mut self, map: Map, target: &str, podman: Option<String>) {
        let number = self.maps.len();
        let source = match podman {
            None => Volume::path(number),
            Some(name) => {
                self.filled.push((name.clone(), u16::try_from(number).unwrap_or(u16::MAX)));
                name
            }
        };
        // Some go with no other.
        let read_only = map.options.read_only.then_some("ro");
        let options: Vec<_> =
            read_only.into_iter().chain(map.options.podman.iter().map(String::as_str)).collect();
        let options = if options.is_empty() { String::new() } else { format!(":{}", options.join(",")) };
        self.volumes.push(format!("{source}:{target}{options}"));
        self.maps.push(map);
    }

    fn record(
        &mut self,
        kind: MountKind,
        name: Option<String>,
        source: PathBuf,
        target: &str,
        options: &Options,
    ) {
        self.records.push(MountRecord {
            kind,
            name,
            source,
            destination: target.into(),
            options: options.podman.clone(),
            writable: !options.read_only,
        });
    }
}

/// Where it really is, and what.
pub(super) fn found(path: &Path, target: &str) -> Result<(PathBuf, VolumeKind), VolumeError> {
    let failed = |source: io::Error| VolumeError::Source { path: path.into(), target: target.into(), source };
    let found = fs::canonicalize(path).map_err(failed)?;
    let kind = fs::metadata(&found).map_err(failed)?.file_type();
    if kind.is_dir() {
        Ok((found, VolumeKind::Directory))
    } else if kind.is_file() {
        Ok((found, VolumeKind::File))
    } else {
        Err(VolumeError::Kind { path: path.into(), target: target.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{storage::DataDir, volume::VolumeSpec};

    fn specs(texts: &[String]) -> Vec<Mount> {
        texts.iter().map(|text| text.parse::<VolumeSpec>().unwrap().0).collect()
    }

    #[test]
    fn sources_are_found_and_podman_is_told_where_the_guest_has_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let store = VolumeStore::open(&DataDir::open(Some(path.join("data"))).unwrap());
        fs::create_dir(path.join("site")).unwrap();
        fs::write(path.join("file"), "").unwrap();
        let texts = [
            format!("{}:/srv:ro,nosuid", path.join("site").display()),
            format!("{}:/etc/file", path.join("file").display()),
            "named:/data".to_owned(),
            "named:/again:nocopy".to_owned(),
            "/cache".to_owned(),
        ];
        let mounts = Mounts::find(&specs(&texts), &store).unwrap();
        assert_eq!(
            mounts.volumes,
            [
                "/run/fcvm/volumes/0:/srv:ro,nosuid",
                "/run/fcvm/volumes/1:/etc/file",
                "named:/data",
                "/run/fcvm/volumes/3:/again"
            ]
        );
        assert_eq!(mounts.mounts, ["type=volume,target=/cache"]);
        assert_eq!(mounts.filled, [("named".to_owned(), 2)]);
        let kinds: Vec<_> = mounts.maps.iter().map(|map| map.kind).collect();
        assert_eq!(kinds[..2], [VolumeKind::Directory, VolumeKind::File]);
        assert!(mounts.maps[0].volume(2).read_only);
        assert_eq!(mounts.records.len(), 5);
        let name: crate::volume::VolumeName = "named".parse().unwrap();
        assert!(store.in_use(&name).unwrap());
        drop(mounts);
        assert!(!store.in_use(&name).unwrap());
    }

    #[test]
    fn what_is_not_there_or_not_fit_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        let store = VolumeStore::open(&DataDir::open(Some(directory.path().join("data"))).unwrap());
        let find = |texts: &[String]| Mounts::find(&specs(texts), &store).unwrap_err();
        let missing = find(&[format!("{path}/missing:/srv")]);
        assert_eq!(missing.to_string(), format!("failed to map `{path}/missing` to `/srv`"));
        assert!(missing.hint().unwrap().contains("mkdir"));
        assert!(matches!(find(&["/dev/null:/srv".to_owned()]), VolumeError::Kind { .. }));
        let twice = find(&[format!("{path}:/srv"), "/srv/".to_owned()]);
        assert!(matches!(twice, VolumeError::Twice { .. }));
    }
}
