//! Reading manifests: bounded, of this format, and such as fcvm writes them.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Component, Path},
};

use fcvm_proto::volume::MAX_VOLUMES;
use serde::Deserialize;

use super::{Contents, FORMAT, MANIFEST, MEMORY, Manifest, SCRATCH, STATE, SnapshotError};

/// Longest manifest, in bytes: container and mounts come from a command line, which has 2 MiB at most.
pub(super) const MAX_MANIFEST: u64 = 16 << 20;
/// Longest file of a snapshot, in bytes: more than any host's memory, and no sum of two overflows.
const MAX_FILE: u64 = 1 << 48;
/// Digits of ids and link keys.
const ID_DIGITS: usize = 32;

#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Contents {
    /// The files that there must be.
    pub(crate) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Machine => &[STATE, MEMORY, SCRATCH],
            Self::Disk => &[SCRATCH],
        }
    }
}

/// The manifest in a directory; nothing where there is no such directory.
pub(super) fn read(directory: &Path) -> Result<Option<Manifest>, SnapshotError> {
    let path = directory.join(MANIFEST);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if directory.exists() { Err(SnapshotError::NoManifest { path }) } else { Ok(None) };
        }
        Err(error) => return Err(SnapshotError::io("read", &path)(error)),
    };
    let bytes = bounded(file).map_err(SnapshotError::io("read", &path))?;
    parse(&bytes, &path).map(Some)
}

/// The bytes of a manifest, and one more where it is too long.
pub(super) fn bounded(from: impl io::Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MAX_MANIFEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Understands a manifest, which is called `path` where it cannot be.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<Manifest, SnapshotError> {
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(SnapshotError::LongManifest { path: path.to_owned() });
    }
    let json = |source| SnapshotError::Json { path: path.to_owned(), source };
    // One of another format may have other fields.
    let Version { format } = serde_json::from_slice(bytes).map_err(json)?;
    if format != FORMAT {
        return Err(SnapshotError::Format { path: path.to_owned(), found: format });
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(json)?;
    match fault(&manifest) {
        None => Ok(manifest),
        Some(what) => Err(SnapshotError::Invalid { path: path.to_owned(), what }),
    }
}

/// What cannot be, though it has the form of a manifest.
fn fault(manifest: &Manifest) -> Option<String> {
    let Manifest { id, link_key, files, machine, .. } = manifest;
    for (name, text) in [("id", id), ("link key", link_key)] {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != ID_DIGITS || !text.bytes().all(is_digit) {
            return Some(format!("its {name} has not {ID_DIGITS} hexadecimal digits"));
        }
    }
    for asset in [&machine.kernel, &machine.initrd, &machine.base] {
        if !stays(&asset.path) {
            return Some(format!("`{}` leads elsewhere", asset.path.display()));
        }
    }
    if manifest.volumes.len() > MAX_VOLUMES {
        return Some(format!("it is to have {} volumes", manifest.volumes.len()));
    }
    let wanted = manifest.file_names();
    if let Some(name) = wanted.iter().find(|name| !files.contains_key(*name)) {
        return Some(format!("its file `{name}` is not told of"));
    }
    files.iter().find_map(|(name, file)| {
        if !wanted.contains(name) {
            Some(format!("it is to have a file `{name}`"))
        } else if file.size > MAX_FILE {
            Some(format!("its file `{name}` is to have {} bytes", file.size))
        } else {
            None
        }
    })
}

/// Whether a path never goes up.
fn stays(path: &Path) -> bool {
    !path.as_os_str().is_empty()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

/// A path of a manifest's assets that is none of the data directory's.
pub(super) fn foreign_asset(manifest: &Manifest) -> Option<&Path> {
    let machine = &manifest.machine;
    let paths = [&machine.kernel, &machine.initrd, &machine.base].map(|asset| asset.path.as_path());
    paths.into_iter().find(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::{manifest, volume};

    fn fault_of(change: impl FnOnce(&mut Manifest)) -> String {
        let mut manifest = manifest("web");
        change(&mut manifest);
        let bytes = serde_json::to_vec(&manifest).unwrap();
        match parse(&bytes, Path::new("m")) {
            Err(SnapshotError::Invalid { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let manifest = manifest("web");
        let bytes = serde_json::to_vec_pretty(&manifest).unwrap();
        assert_eq!(parse(&bytes, Path::new("m")).unwrap(), manifest);
        assert_eq!(foreign_asset(&manifest), None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(fault_of(|manifest| manifest.id = "x".repeat(32)).contains("its id"));
        assert!(fault_of(|manifest| manifest.link_key.clear()).contains("link key"));
        assert!(
            fault_of(|manifest| manifest.machine.base.path = "../../etc/shadow".into()).contains("elsewhere")
        );
        assert!(
            fault_of(|manifest| manifest.files.retain(|name, _| name != MEMORY))
                .contains("`memory.bin` is not told")
        );
        assert!(
            fault_of(|manifest| manifest.contents = Contents::Disk).contains("to have a file `memory.bin`")
        );
        assert!(
            fault_of(|manifest| {
                let file = manifest.files[SCRATCH].clone();
                manifest.files.insert("../x".into(), file);
            })
            .contains("`../x`")
        );
        assert!(
            fault_of(|manifest| manifest.files.get_mut(SCRATCH).unwrap().size = u64::MAX)
                .contains(&u64::MAX.to_string())
        );
    }

    #[test]
    fn each_volume_of_a_machine_has_a_file() {
        let without = fault_of(|manifest| manifest.volumes.push(volume()));
        assert!(without.contains("`volume-0` is not told"), "{without}");
        let mut manifest = manifest("web");
        manifest.volumes.push(volume());
        manifest.files.insert("volume-0".into(), manifest.files[SCRATCH].clone());
        assert_eq!(fault(&manifest), None);
        manifest.volumes.clear();
        assert!(fault(&manifest).unwrap().contains("to have a file `volume-0`"));
        manifest.volumes.resize_with(MAX_VOLUMES + 1, volume);
        assert!(fault(&manifest).unwrap().contains("101 volumes"));
    }

    #[test]
    fn other_formats_and_other_things_are_told_apart() {
        let parse = |bytes: &[u8]| parse(bytes, Path::new("m")).unwrap_err();
        let newer = parse(br#"{"format":99,"other":[]}"#);
        assert!(matches!(newer, SnapshotError::Format { found: 99, .. }) && newer.hint().is_some());
        assert!(!newer.is_damage());
        assert!(matches!(parse(b"{}"), SnapshotError::Json { .. }));
        assert!(matches!(parse(&[b' '; 10]), SnapshotError::Json { .. }));
        let long = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
        assert!(matches!(parse(&long), SnapshotError::LongManifest { .. }));
        let mut other = serde_json::to_value(manifest("web")).unwrap();
        other["surprise"] = true.into();
        assert!(matches!(parse(other.to_string().as_bytes()), SnapshotError::Json { .. }));
    }
}
