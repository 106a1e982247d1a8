use std::{
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{blobs::Unused, *};
use crate::image::{
    disk::DiskError,
    disk::HostBuilder,
    model::{DiskSource, DiskStats},
    testing::{Layout, layer_bytes},
    transport,
};
use crate::storage::Lock;

struct Place {
    dir: tempfile::TempDir,
    store: Store,
}

const STATS: DiskStats = DiskStats { bytes: 4, allocated: 4, files: 1, unpacked: 4 };

/// Stands in for the writer of disks where a test is not about disks.
fn write_disk(path: &Path, _: &DiskSource) -> Result<DiskStats, DiskError> {
    std::fs::write(path, "disk").unwrap();
    Ok(STATS)
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(dir.path().to_owned())).unwrap();
        Self { store: Store::with_registries(&data, RegistryFiles::none()), dir }
    }

    fn source(&self, content: &str) -> DiskSource {
        let layout = self.dir.path().join(format!("layout-{content}"));
        Layout::with_image(content).write(&layout);
        transport::oci_layout(&layout, None).unwrap()
    }

    fn add(&self, content: &str) -> StoredImage {
        self.store.ensure_with(self.source(content), &Printer::from_env(), write_disk).unwrap()
    }

    fn tag(&self, name: &str, image: &StoredImage) {
        self.store.tag(&name.parse().unwrap(), NameRecord::local(image.digest)).unwrap();
    }

    fn find(&self, name: &str) -> Option<Digest> {
        self.store.find(&name.parse().unwrap()).unwrap()
    }

    fn remove(&self, image: &str, force: Force) -> Result<Removed, ImageError> {
        self.store.remove(&image.parse().unwrap(), force)
    }

    /// What is in `images/`, but for locks and names.
    fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path().join("images")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !["locks", "names.json", "names.lock"].contains(&name.as_str())).collect()
    }
}

#[test]
fn many_builders_build_once() {
    let place = Place::new();
    let (built, start) = (AtomicUsize::new(0), Barrier::new(8));
    let build = |path: &Path, source: &DiskSource| {
        built.fetch_add(1, Ordering::SeqCst);
        write_disk(path, source)
    };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let source = place.source("x");
            let (store, start, build) = (&place.store, &start, &build);
            scope.spawn(move || {
                start.wait();
                store.ensure_with(source, &Printer::from_env(), build).unwrap()
            });
        }
    });
    assert_eq!(built.load(Ordering::SeqCst), 1);
    assert_eq!(place.left().len(), 1);
}

#[test]
fn what_a_killed_build_left_is_removed() {
    let place = Place::new();
    let source = place.source("x");
    let images = place.dir.path().join("images");
    let left = images.join(format!(".tmp-{}-abc", source.manifest_digest.hex()));
    let foreign = images.join(format!(".tmp-{}-abc", Digest::of(b"").hex()));
    for path in [&left, &foreign] {
        std::fs::create_dir_all(path).unwrap();
        std::fs::write(path.join("disk.ext4"), "ha").unwrap();
    }
    std::fs::write(images.join(".tmp-names"), "ha").unwrap();
    place.add("x");
    assert!(!left.exists(), "the next build removes it");
    assert!(foreign.exists(), "another image's is not its business");

    let building = Lock::acquire(&place.store.lock_path(&Digest::of(b"")), || ()).unwrap();
    place.store.gc(Pruning::Real).unwrap();
    assert!(foreign.exists(), "it is being made");
    drop(building);
    place.store.gc(Pruning::Real).unwrap();
    assert_eq!(place.left().len(), 1, "{:?}", place.left());
}

#[test]
fn a_changed_disk_is_made_anew_or_refused() {
    let place = Place::new();
    let image = place.add("x");
    for damage in [
        &(|disk: &Path| {
            // As large, and told by its time alone, which may not have ticked since.
            let file = std::fs::File::options().write(true).open(disk).unwrap();
            file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
        }) as &dyn Fn(&Path),
        &|disk| std::fs::write(disk, "dis").unwrap(),
        &|disk| std::fs::remove_file(disk).unwrap(),
        &|disk| std::fs::write(disk.with_file_name("image.json"), "{}").unwrap(),
        &|disk| std::fs::write(disk.with_file_name("config.json"), "{}").unwrap(),
        &|disk| std::fs::remove_file(disk.with_file_name("manifest.json")).unwrap(),
    ] {
        damage(&image.disk);
        let error = place.store.get(&image.digest, &Printer::from_env()).unwrap_err();
        assert!(matches!(error, ImageError::Corrupt { .. }), "{error:?}");
        assert!(place.store.list().unwrap()[0].image.is_err());
        place.add("x");
        assert!(place.store.get(&image.digest, &Printer::from_env()).is_ok());
    }
    assert_eq!(place.left().len(), 1);
}

#[test]
fn the_format_of_the_disk_decides() {
    let place = Place::new();
    let image = place.add("x");
    let path = image.disk.with_file_name("image.json");
    let format = |number: u32| {
        let current = format!("\"format\":{}", record::DISK_FORMAT);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(&current, &format!("\"format\":{number}"))).unwrap();
    };
    format(record::DISK_FORMAT - 1);
    assert!(matches!(place.store.load(&image.digest).unwrap(), Loaded::Unusable { .. }));
    place.add("x");
    format(record::DISK_FORMAT + 1);
    let error = place.store.get(&image.digest, &Printer::from_env()).unwrap_err();
    assert!(matches!(error, ImageError::TooNew { .. }), "{error:?}");
}

#[test]
fn a_failed_build_leaves_nothing() {
    let place = Place::new();
    let mut source = place.source("x");
    source.layers[0].open = Box::new(|| Err(std::io::ErrorKind::BrokenPipe.into()));
    let error = place.store.ensure_disk(source, &Printer::from_env(), &HostBuilder).unwrap_err();
    assert!(matches!(error, ImageError::Disk { .. }), "{error:?}");
    assert!(place.left().is_empty(), "{:?}", place.left());

    let mut source = place.source("x");
    source.layers[0].size = Some(u64::MAX);
    let error = place.store.ensure_disk(source, &Printer::from_env(), &HostBuilder).unwrap_err();
    assert!(matches!(error, ImageError::Space { needed: u64::MAX, .. }), "{error:?}");
    assert!(error.hint().unwrap().starts_with("free "), "{error:?}");
}

#[test]
fn names_lead_to_images() {
    let place = Place::new();
    let (one, two) = (place.add("one"), place.add("two"));
    place.tag("docker.io/library/hello:latest", &one);
    assert_eq!(place.find("hello"), Some(one.digest));
    place.tag("localhost/hello:latest", &two);
    assert_eq!(place.find("hello"), Some(two.digest), "what was made here goes first");
    assert_eq!(place.find("docker.io/hello"), Some(one.digest));
    assert_eq!(place.find("hello:other"), None);
    assert_eq!(place.find(&format!("hello@{}", one.digest)), Some(one.digest));
    assert_eq!(place.find(&format!("other@{}", one.digest)), None);
    assert_eq!(place.find(&one.id.short()), Some(one.digest));
    assert_eq!(place.find(&two.digest.short()), Some(two.digest));
    let unknown = place.store.tag(&"localhost/x:y".parse().unwrap(), NameRecord::local(Digest::of(b"")));
    assert!(matches!(unknown, Err(ImageError::Unknown { .. })));
}

#[test]
fn an_id_that_several_images_begin_with_is_ambiguous() {
    let place = Place::new();
    for number in 0..17 {
        place.add(&number.to_string());
    }
    // Of 17 images at least two begin with the same of 16 digits.
    let digits = "0123456789abcdef".chars().map(|digit| digit.to_string());
    let results: Vec<_> = digits.map(|digit| place.store.find(&digit.parse().unwrap())).collect();
    assert!(results.iter().any(|result| matches!(result, Err(ImageError::Ambiguous { .. }))), "{results:?}");
}

#[test]
fn images_go_with_their_last_name() {
    let place = Place::new();
    let image = place.add("x");
    place.tag("localhost/a:latest", &image);
    place.tag("localhost/b:latest", &image);
    let id = format!("sha256:{}", image.id.hex());
    assert!(matches!(place.remove(&id, Force::No), Err(ImageError::SeveralNames { .. })));
    assert_eq!(place.remove("a", Force::No).unwrap(), Removed::Name("localhost/a:latest".parse().unwrap()));
    assert!(matches!(place.remove("a", Force::No), Err(ImageError::Unknown { .. })));
    assert!(
        matches!(place.remove("b", Force::No).unwrap(), Removed::Image(digest, _) if digest == image.digest)
    );
    assert!(place.left().is_empty());
    assert!(matches!(place.remove(&id, Force::Yes), Err(ImageError::Unknown { .. })));

    let image = place.add("x");
    place.tag("localhost/a:latest", &image);
    place.tag("localhost/b:latest", &image);
    assert!(matches!(place.remove(&id, Force::Yes).unwrap(), Removed::Image(_, names) if names.len() == 2));
    assert_eq!(place.find("a"), None);
}

#[test]
fn an_image_in_use_stays() {
    let place = Place::new();
    let image = place.add("x");
    place.tag("localhost/a:latest", &image);
    let (one, two) = (image.hold().unwrap(), image.hold().unwrap());
    drop(one);
    assert!(matches!(place.remove("a", Force::Yes), Err(ImageError::InUse { .. })));
    assert_eq!(place.find("a"), Some(image.digest), "nothing was done");
    drop(two);
    place.remove("a", Force::No).unwrap();
    assert_eq!(image.hold().unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_damaged_image_can_be_removed() {
    let place = Place::new();
    let image = place.add("x");
    std::fs::write(image.disk.with_file_name("image.json"), "?").unwrap();
    place.remove(&image.digest.to_string(), Force::No).unwrap();
    assert!(place.left().is_empty());
}

#[test]
fn blobs_go_with_the_last_image_that_has_them() {
    let place = Place::new();
    let adder = place.store.add_blobs().unwrap();
    let image = place.add("x");
    let config = std::fs::read(image.disk.with_file_name("config.json")).unwrap();
    let manifest = std::fs::read(image.disk.with_file_name("manifest.json")).unwrap();
    for bytes in [config.as_slice(), &manifest, b"unused"] {
        adder.add(bytes).unwrap().commit().unwrap();
    }
    drop(adder.add(b"never committed").unwrap());
    let blobs = place.dir.path().join("blobs/sha256");
    let count = || std::fs::read_dir(&blobs).unwrap().count();
    assert_eq!(count(), 3);
    place.store.gc(Pruning::Real).unwrap();
    assert_eq!(count(), 3, "an import may be going to refer to it");
    drop(adder);
    place.store.gc(Pruning::Real).unwrap();
    assert_eq!(count(), 3, "an interrupted pull may be taken up again");
    let unused = std::fs::File::open(blobs.join(Digest::of(b"unused").hex())).unwrap();
    let day = std::time::Duration::from_secs(24 * 60 * 60);
    unused.set_modified(std::time::SystemTime::now() - day * 2).unwrap();
    place.store.gc(Pruning::Real).unwrap();
    assert_eq!(count(), 2);
    place.store.add_blobs().unwrap().add(b"unused").unwrap().commit().unwrap();
    place.remove(&image.id.to_string(), Force::No).unwrap();
    assert_eq!(count(), 1, "what the image had is gone at once");
    assert!(!place.store.collect_blobs(&Unused::All, Pruning::Real).unwrap().is_empty());
    assert_eq!(count(), 0);
}

#[test]
fn what_a_registry_has_is_fetched_again() {
    let place = Place::new();
    let (source, printer) = (place.source("x"), Printer::from_env());
    let layer = layer_bytes(&source, 0);
    let blobs = [source.config.clone(), source.manifest.clone(), layer.clone()];
    let image = place.store.ensure_disk(source, &printer, &HostBuilder).unwrap();
    let add = |bytes: &[u8]| place.store.add_blobs().unwrap().add(bytes).unwrap().commit();
    for bytes in &blobs {
        add(bytes).unwrap();
    }
    let record = NameRecord { image: image.digest, origin: Origin::Registry, upstream: None };
    let name = "registry.example/x:1".parse().unwrap();
    place.store.tag(&name, record).unwrap();
    let verify = |repair: Repair<'_>| place.store.verify_images(&[image.digest], repair, &printer).unwrap();
    assert_eq!(verify(Repair::No), []);

    let path = place.dir.path().join("blobs/sha256").join(Digest::of(&layer).hex());
    std::fs::write(&path, "damaged").unwrap();
    let what = |damaged: &[Damage]| damaged.iter().map(|one| (one.what, one.outcome)).collect::<Vec<_>>();
    assert_eq!(what(&verify(Repair::No)), [(Wrong::Digest, Outcome::Left)]);
    let refetch = |asked: &FullName, of: &NameRecord| {
        assert_eq!((asked, of), (&name, &record));
        assert!(!path.exists(), "the bad one went first");
        add(&layer)
    };
    assert_eq!(what(&verify(Repair::Yes(Some(&refetch)))), [(Wrong::Digest, Outcome::Repaired)]);
    assert_eq!(verify(Repair::Yes(Some(&refetch))), []);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(what(&verify(Repair::Yes(None))), [(Wrong::Missing, Outcome::Left)]);
}
