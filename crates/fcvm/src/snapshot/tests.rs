//! The store and its archives, by way of what others call.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tar::{Builder, EntryType, Header};

use super::{
    Contents, MANIFEST, MEMORY, SCRATCH, STATE, Snapshot, SnapshotError, Store, export, import, store,
    testing::{fill, host, make, manifest, tag, volume},
};
use crate::storage::DataDir;

struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&DataDir::open(Some(directory.path().to_owned())).unwrap());
        Self { directory, store }
    }

    /// The names in the directory of snapshots.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path().join("snapshots")).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn file(&self, name: &str, file: &str) -> PathBuf {
        self.directory.path().join("snapshots").join(name).join(file)
    }

    fn import(&self, bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
        import(&self.store, Path::new("archive"), bytes, None)
    }
}

fn archive(snapshot: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    export(snapshot, Path::new("archive"), &mut bytes).unwrap();
    bytes
}

/// Changes a byte of a file.
fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

fn set_time(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_snapshot_is_there_when_it_is_whole() {
    let place = Place::new();
    assert!(place.store.list().unwrap().is_empty() && place.store.garbage().unwrap().is_empty());
    let partial = place.store.begin(&tag("web")).unwrap();
    fill(&partial);
    fs::create_dir(partial.path("sockets")).unwrap();
    fs::write(partial.path("sockets/x"), "").unwrap();
    assert_eq!(fs::metadata(partial.path(".")).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(place.store.list().unwrap().is_empty());
    assert!(matches!(place.store.get(&tag("web")), Err(SnapshotError::Unknown { .. })));
    let made = partial.commit(manifest("other")).unwrap();
    assert_eq!(place.names(), ["web"]);
    let mut files: Vec<_> =
        fs::read_dir(made.directory()).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, [MANIFEST, MEMORY, SCRATCH, STATE]);

    let found = place.store.get(&tag("web")).unwrap();
    assert_eq!(found.manifest(), made.manifest());
    assert_eq!(found.manifest().tag, tag("web"));
    assert_eq!(found.manifest().files[SCRATCH].size, (64 << 20) + 5);
    assert_ne!(found.manifest().files[SCRATCH].sha256, found.manifest().files[MEMORY].sha256);
    found.check(&host()).unwrap();
    assert!(found.verify().unwrap().is_empty());
    let listed = place.store.list().unwrap();
    assert_eq!(listed[0].manifest.as_ref().unwrap(), made.manifest());
    assert!((1..1 << 20).contains(&listed[0].allocated), "{}", listed[0].allocated);
}

#[test]
fn what_is_not_finished_leaves_nothing() {
    let place = Place::new();
    let partial = place.store.begin(&tag("web")).unwrap();
    fill(&partial);
    drop(partial);
    assert!(place.names().is_empty());

    let partial = place.store.begin(&tag("web")).unwrap();
    fill(&partial);
    fs::remove_file(partial.path(MEMORY)).unwrap();
    let error = partial.commit(manifest("web")).unwrap_err();
    assert!(matches!(&error, SnapshotError::Missing { file, .. } if file == MEMORY), "{error}");
    assert!(place.names().is_empty());

    // Of a disk alone there need be no more.
    let partial = place.store.begin(&tag("disk")).unwrap();
    fs::write(partial.path(SCRATCH), "disk").unwrap();
    let disk = super::Manifest { contents: Contents::Disk, ..manifest("disk") };
    assert_eq!(partial.commit(disk).unwrap().manifest().files.len(), 1);
}

#[test]
fn one_without_a_name_is_there_while_somebody_has_it() {
    let place = Place::new();
    let reserved = place.store.reserve().unwrap();
    let name = reserved.name().to_owned();
    let tag = reserved.tag().unwrap();
    // Whoever has it, nobody takes it for what a crash left.
    let kept = || {
        assert!(place.store.collect_garbage().unwrap().is_empty());
        assert!(place.store.list().unwrap().is_empty());
        assert_eq!(place.names(), [name.as_str()]);
    };
    kept();
    let partial = place.store.begin_unnamed(&name, &tag).unwrap();
    assert!(matches!(place.store.get_unnamed(&name), Err(SnapshotError::NoManifest { .. })));
    fill(&partial);
    drop(partial.commit(manifest("other")).unwrap());
    kept();
    let clone = place.store.get_unnamed(&name).unwrap();
    assert_eq!((clone.tag(), &clone.manifest().tag), (&tag, &tag));
    clone.check(&host()).unwrap();
    reserved.trim().unwrap();
    drop(reserved);
    kept();
    assert!(place.file(&name, MEMORY).exists() && !place.file(&name, SCRATCH).exists());
    drop(clone);
    assert_eq!(place.store.collect_garbage().unwrap().len(), 1);
    assert!(place.names().is_empty());
    for name in [&name, "web", "../x", ".tmp-", ".tmp-../x", ""] {
        assert!(matches!(place.store.begin_unnamed(name, &tag), Err(SnapshotError::Gone { .. })), "{name}");
    }
    // One that is not finished stays with who reserved it, and goes with it.
    let reserved = place.store.reserve().unwrap();
    drop(place.store.begin_unnamed(reserved.name(), &tag).unwrap());
    assert_eq!(place.names().len(), 1);
    drop(reserved);
    assert_eq!(place.store.collect_garbage().unwrap().len(), 1);
}

#[test]
fn a_name_is_given_once() {
    let place = Place::new();
    let (first, second) = (place.store.begin(&tag("web")).unwrap(), place.store.begin(&tag("web")).unwrap());
    fill(&first);
    fill(&second);
    let first = first.commit(manifest("web")).unwrap();
    let error = second.commit(manifest("web")).unwrap_err();
    assert!(matches!(error, SnapshotError::Exists { .. }), "{error}");
    assert_eq!(error.hint().unwrap(), "choose another name, or remove it first: `fcvm snapshot rm web`");
    assert_eq!(place.names(), ["web"]);
    assert!(matches!(place.store.begin(&tag("web")), Err(SnapshotError::Exists { .. })));
    first.check(&host()).unwrap();
}

#[test]
fn one_that_is_used_stays() {
    let place = Place::new();
    let made = make(&place.store, "web");
    let used = place.store.get(&tag("web")).unwrap();
    drop(made);
    let error = place.store.remove(&tag("web")).unwrap_err();
    assert!(matches!(error, SnapshotError::InUse { .. }) && error.hint().is_some(), "{error}");
    let pruned = place.store.prune(None).unwrap();
    assert_eq!((pruned.removed, pruned.in_use), (Vec::new(), vec![tag("web")]));
    used.check(&host()).unwrap();
    drop(used);
    place.store.remove(&tag("web")).unwrap();
    assert!(place.names().is_empty());
    assert!(matches!(place.store.remove(&tag("web")), Err(SnapshotError::Unknown { .. })));
}

#[test]
fn old_ones_are_pruned_by_their_age() {
    let place = Place::new();
    drop(make(&place.store, "web"));
    fs::create_dir(place.file("broken", "")).unwrap();
    let created: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    assert!(place.store.prune(Some(created)).unwrap().removed.is_empty());
    let pruned = place.store.prune(Some(created + Duration::from_secs(1))).unwrap().removed;
    assert!(matches!(pruned.as_slice(), [(tag, bytes)] if tag.as_str() == "web" && *bytes > 0), "{pruned:?}");
    assert_eq!(place.names(), ["broken"], "its age is not known");
    place.store.prune(None).unwrap();
    assert!(place.names().is_empty());
}

#[test]
fn a_file_that_is_not_what_it_was_is_found() {
    let place = Place::new();
    let made = make(&place.store, "web");
    let check = || made.check(&host());
    let memory = place.file("web", MEMORY);
    let time = fs::metadata(&memory).unwrap().modified().unwrap();
    let other = time + Duration::from_secs(1);

    set_time(&memory, other);
    check().expect("the same content at another time");
    flip(&memory, 1 << 20);
    let error = check().unwrap_err();
    assert!(matches!(&error, SnapshotError::Content { file, .. } if file == MEMORY), "{error}");
    assert_eq!(error.hint().unwrap(), "remove it with `fcvm snapshot rm`, and make or import it again");
    set_time(&memory, time);
    check().expect("one of the same size and time is not read");
    assert!(matches!(made.verify().unwrap().as_slice(), [SnapshotError::Content { .. }]));
    flip(&memory, 1 << 20);
    // What was a hole is data now.
    flip(&memory, 3 << 20);
    assert!(matches!(check().unwrap_err(), SnapshotError::Content { .. }));
    flip(&memory, 3 << 20);
    check().expect("zeros are as good as a hole");

    File::options().write(true).open(&memory).unwrap().set_len((8 << 20) - 1).unwrap();
    let error = check().unwrap_err();
    assert!(matches!(error, SnapshotError::Size { found: 8_388_607, recorded: 8_388_608, .. }), "{error}");
    fs::remove_file(&memory).unwrap();
    assert!(matches!(check().unwrap_err(), SnapshotError::Missing { .. }));
    fs::remove_file(place.file("web", STATE)).unwrap();
    assert_eq!(made.verify().unwrap().len(), 2);
}

#[test]
fn a_damaged_one_is_listed_and_can_be_removed() {
    let place = Place::new();
    for name in ["cut", "newer", "none"] {
        drop(make(&place.store, name));
    }
    let path = place.file("cut", MANIFEST);
    fs::write(&path, &fs::read(&path).unwrap()[..100]).unwrap();
    fs::write(place.file("newer", MANIFEST), r#"{"format":99}"#).unwrap();
    fs::remove_file(place.file("none", MANIFEST)).unwrap();
    let listed = place.store.list().unwrap();
    let errors: Vec<_> = listed.iter().map(|listed| listed.manifest.as_ref().unwrap_err()).collect();
    assert!(matches!(
        errors.as_slice(),
        [
            SnapshotError::Json { .. },
            SnapshotError::Format { found: 99, .. },
            SnapshotError::NoManifest { .. }
        ]
    ));
    for listed in &listed {
        assert!(listed.allocated > 0 && place.store.get(&listed.tag).is_err());
        place.store.remove(&listed.tag).unwrap();
    }
    assert!(place.names().is_empty());
}

#[test]
fn only_what_nobody_works_on_is_garbage() {
    let place = Place::new();
    drop(make(&place.store, "web"));
    let partial = place.store.begin(&tag("next")).unwrap();
    fill(&partial);
    let left = place.file(".tmp-left", "");
    fs::create_dir(&left).unwrap();
    fs::write(left.join(MEMORY), "x").unwrap();
    let paths = |paths: Vec<PathBuf>| {
        paths.iter().map(|path| path.file_name().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths(place.store.garbage().unwrap()), [".tmp-left"]);
    assert!(left.exists());
    assert_eq!(paths(place.store.collect_garbage().unwrap()), [".tmp-left"]);
    assert!(!left.exists() && place.store.garbage().unwrap().is_empty());
    partial.commit(manifest("next")).unwrap();
    assert_eq!(place.names(), ["next", "web"]);
}

#[test]
fn what_others_would_remove_is_told() {
    let place = Place::new();
    let snapshots = place.directory.path().join("snapshots");
    let data = DataDir::open(Some(place.directory.path().to_owned())).unwrap();
    let image = manifest("web").image.digest;
    assert_eq!(super::user_of_image(&snapshots, &image).unwrap(), None);
    drop(make(&place.store, "web"));
    // Of a later format, with more to it.
    let path = place.file("web", MANIFEST);
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    (value["format"], value["more"]) = (9.into(), true.into());
    fs::write(&path, value.to_string()).unwrap();
    assert_eq!(super::user_of_image(&snapshots, &image).unwrap(), Some(tag("web")));
    assert_eq!(super::user_of_image(&snapshots, &crate::hash::Digest::of(b"")).unwrap(), None);
    let assets = super::assets(&data).unwrap();
    assert!(assets.contains(&data.kernels().join("key/vmlinux")) && assets.len() == 3, "{assets:?}");
    fs::write(&path, "{").unwrap();
    assert!(super::assets(&data).unwrap().is_empty());
}

#[test]
fn an_archive_brings_all_of_it_to_another_place() {
    let (place, other) = (Place::new(), Place::new());
    let made = make(&place.store, "web");
    let bytes = archive(&made);
    assert!(bytes.len() < 64 << 10, "{} bytes", bytes.len());
    assert_eq!(bytes, archive(&made), "the same snapshot gives the same bytes");
    let taken = other.import(&bytes).unwrap();
    taken.check(&host()).unwrap();
    assert!(taken.verify().unwrap().is_empty());
    for (name, record) in &made.manifest().files {
        let [was, is] = [&made, &taken].map(|snapshot| fs::metadata(snapshot.path(name)).unwrap());
        assert_eq!((record.size, record.sha256), {
            let taken = &taken.manifest().files[name];
            (taken.size, taken.sha256)
        });
        assert!(is.blocks() <= was.blocks() + 16, "{name}: {} and {} blocks", is.blocks(), was.blocks());
    }
    let error = other.import(&bytes).unwrap_err();
    assert!(matches!(error, SnapshotError::Exists { .. }), "{error}");
    let again = import(&other.store, Path::new("-"), bytes.as_slice(), Some(&tag("copy"))).unwrap();
    assert_eq!((again.manifest().tag.as_str(), &again.manifest().id), ("copy", &made.manifest().id));
    assert_eq!(other.names(), ["copy", "web"]);
    // One that is damaged is not handed on.
    File::options().write(true).open(made.path(MEMORY)).unwrap().set_len(5).unwrap();
    let error = export(&made, Path::new("x"), io::sink()).unwrap_err();
    assert!(matches!(error, SnapshotError::Size { .. }), "{error}");
}

#[test]
fn an_archive_that_is_cut_is_refused() {
    let (place, other) = (Place::new(), Place::new());
    let bytes = archive(&make(&place.store, "web"));
    let step = bytes.len() / 60 + 1;
    for length in (0..bytes.len()).step_by(step).chain(bytes.len() - 5..bytes.len()) {
        assert!(other.import(&bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
        assert!(other.names().is_empty());
    }
}

#[test]
fn an_archive_with_a_wrong_bit_is_refused_or_the_same() {
    let (place, other) = (Place::new(), Place::new());
    let made = make(&place.store, "web");
    let bytes = archive(&made);
    let mut refused = 0;
    for at in (0..bytes.len()).step_by(bytes.len() / 80 + 1) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1 << (at % 8);
        match other.import(&wrong) {
            Err(_) => refused += 1,
            // A bit that means nothing.
            Ok(taken) => {
                let mut manifest = taken.manifest().clone();
                for (name, record) in &mut manifest.files {
                    record.stamp = made.manifest().files[name].stamp;
                }
                assert_eq!(manifest, *made.manifest(), "bit {at}");
                assert!(taken.verify().unwrap().is_empty(), "bit {at}");
                drop(taken);
                other.store.remove(&tag("web")).unwrap();
            }
        }
        assert!(other.names().is_empty());
    }
    assert!(refused > 40, "{refused}");
}

/// An archive of somebody else's making.
struct Forged(Builder<Vec<u8>>);

impl Forged {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// One that begins with a manifest of small files: what they are to be is made up for each.
    fn with(change: impl FnOnce(&mut super::Manifest)) -> Self {
        let mut manifest = manifest("web");
        for name in [STATE, MEMORY, SCRATCH] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(name.as_bytes(), 0).unwrap();
            let record = manifest.files.get_mut(name).unwrap();
            record.size = name.len() as u64;
            record.sha256 = super::digest::of_file(&file, record.size).unwrap();
        }
        change(&mut manifest);
        Self::new().entry(EntryType::Regular, MANIFEST, &serde_json::to_vec(&manifest).unwrap())
    }

    fn entry(mut self, kind: EntryType, name: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        // Whatever it is, as `Builder` would refuse some.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(EntryType::Regular, name, name.as_bytes())
    }

    fn files(self) -> Self {
        self.file(STATE).file(MEMORY).file(SCRATCH)
    }

    fn compress(self) -> Vec<u8> {
        zstd::encode_all(self.0.into_inner().unwrap().as_slice(), 1).unwrap()
    }
}

#[test]
fn an_archive_of_something_else_is_refused() {
    let place = Place::new();
    assert!(
        place.import(&Forged::with(|_| ()).files().compress()).is_ok(),
        "the others differ from this one"
    );
    place.store.remove(&tag("web")).unwrap();
    let whole = || Forged::with(|_| ());
    let pax = |text: &str| whole().entry(EntryType::XHeader, "x", text.as_bytes());
    for (bytes, words) in [
        (Vec::new(), "failed to read"),
        (b"not compressed".to_vec(), "failed to read"),
        (Forged::new().compress(), "does not begin with"),
        (Forged::new().file(STATE).compress(), "does not begin with"),
        (Forged::new().entry(EntryType::Symlink, MANIFEST, b"").compress(), "does not begin with"),
        (Forged::new().entry(EntryType::Regular, MANIFEST, b"{}").compress(), "not what fcvm writes"),
        (Forged::new().entry(EntryType::Regular, MANIFEST, b"{\"format\":99}").compress(), "has format 99"),
        (
            Forged::with(|manifest| manifest.machine.base.path = "/etc/shadow".into()).files().compress(),
            "of another host",
        ),
        (
            Forged::with(|manifest| manifest.machine.base.path = "rootfs/../../x".into()).files().compress(),
            "leads elsewhere",
        ),
        (
            Forged::with(|manifest| {
                manifest.volumes.push(volume());
                manifest.files.insert("volume-0".into(), manifest.files[STATE].clone());
            })
            .files()
            .file("volume-0")
            .compress(),
            "it wants `/srv/site` of this host",
        ),
        (
            Forged::with(|manifest| manifest.files.get_mut(STATE).unwrap().size += 1).files().compress(),
            "`state` has not the length",
        ),
        (
            Forged::with(|manifest| {
                manifest.files.get_mut(STATE).unwrap().sha256 = crate::hash::Digest::of(b"")
            })
            .files()
            .compress(),
            "`state` has not the content",
        ),
        (whole().file(STATE).file(MEMORY).compress(), "`scratch.raw` is not in it"),
        (whole().files().file(STATE).compress(), "`state` does not belong"),
        (whole().file("../state").compress(), "`../state` does not belong"),
        (whole().file("other").compress(), "`other` does not belong"),
        (whole().file(MANIFEST).compress(), "`manifest.json` does not belong"),
        (whole().entry(EntryType::Symlink, STATE, b"").compress(), "`state` does not belong"),
        (whole().entry(EntryType::Directory, STATE, b"").compress(), "`state` does not belong"),
        (whole().entry(EntryType::GNUSparse, STATE, b"").compress(), "failed to read"),
        (pax("17 path=../state\n").file(STATE).compress(), "failed to read"),
        (pax("22 GNU.sparse.major=1\n").file(STATE).compress(), "failed to read"),
        // More than any header is.
        (
            whole().entry(EntryType::XHeader, "x", &vec![b'x'; 2 << 20]).file(STATE).compress(),
            "failed to read",
        ),
        (
            whole().entry(EntryType::GNULongName, "x", &vec![b'x'; 2 << 20]).file(STATE).compress(),
            "failed to read",
        ),
    ] {
        let error = place.import(&bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(place.names().is_empty(), "{error}");
    }
    // What follows the end is read only so far.
    let mut long = whole().files().0.into_inner().unwrap();
    long.resize(long.len() + (2 << 20), 0);
    let error = place.import(&zstd::encode_all(long.as_slice(), 1).unwrap()).unwrap_err();
    assert!(
        matches!(&error, SnapshotError::ReadArchive { source, .. } if source.to_string().contains("more than it needs"))
    );
    assert!(place.names().is_empty());
}

#[test]
fn a_map_that_lies_is_refused() {
    let place = Place::new();
    let sparse = |map: &str, data: &[u8]| {
        let mut archive = Forged::with(|manifest| manifest.files.get_mut(STATE).unwrap().size = 10_000);
        archive
            .0
            .append_pax_extensions([
                ("GNU.sparse.major", b"1".as_slice()),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", STATE.as_bytes()),
                ("GNU.sparse.realsize", b"10000"),
            ])
            .unwrap();
        let mut content = map.as_bytes().to_vec();
        content.resize(512, 0);
        content.extend(data);
        archive.entry(EntryType::Regular, "x", &content).compress()
    };
    for (map, data, words) in [
        ("1\n0\n4096\n", 4096, "has not the content"),
        ("1\n0\n4096\n", 4095, "failed to read"),
        ("1\n0\n4096\n", 4097, "failed to read"),
        ("1\n8192\n4096\n", 4096, "failed to read"),
        ("nonsense", 0, "failed to read"),
    ] {
        let error = place.import(&sparse(map, &vec![1; data])).unwrap_err().to_string();
        assert!(error.contains(words), "{map:?}: {error}");
        assert!(place.names().is_empty());
    }
}

/// A reader that fails in the middle.
#[test]
fn an_archive_that_cannot_be_read_leaves_nothing() {
    let (place, other) = (Place::new(), Place::new());
    let bytes = archive(&make(&place.store, "web"));
    let mut from = File::open(place.directory.path()).unwrap();
    let error = import(&other.store, Path::new("directory"), &mut from, None).unwrap_err();
    assert!(matches!(error, SnapshotError::ReadArchive { .. } | SnapshotError::Archive { .. }), "{error}");
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    assert!(full.write_all(&bytes).is_err());
    let error = export(&place.store.get(&tag("web")).unwrap(), Path::new("/dev/full"), &full).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("free space")), "{error}");
    assert!(other.names().is_empty());
}

#[test]
fn what_is_there_is_counted() {
    let place = Place::new();
    assert_eq!(store::allocated(&place.file("none", "")), 0);
    let made = make(&place.store, "web");
    assert_eq!(made.allocated(), store::allocated(made.directory()));
}

#[test]
fn a_snapshot_with_volumes_goes_nowhere_else() {
    let place = Place::new();
    let mut manifest = manifest("web");
    manifest.volumes.push(volume());
    let partial = place.store.begin(&tag("web")).unwrap();
    fill(&partial);
    fs::write(partial.path("volume-0"), "what is open").unwrap();
    let made = partial.commit(manifest).unwrap();
    assert_eq!(made.manifest().files["volume-0"].size, 12);
    let error = export(&made, Path::new("x"), io::sink()).unwrap_err();
    assert!(matches!(&error, SnapshotError::Volumes { .. }) && error.hint().is_some(), "{error}");
    fs::write(made.path("volume-0"), "what is 0pen").unwrap();
    assert_eq!(made.verify().unwrap().len(), 1);
}
