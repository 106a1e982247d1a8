//! Where files share blocks.

use super::*;

/// A data directory of `make setup-btrfs`; unmounted when dropped.
struct Btrfs(PathBuf);

impl Btrfs {
    /// Runs the script; what it said.
    fn set_up(&self, size: &str) -> Result<String, String> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/setup-btrfs.sh");
        let output = Command::new(script).env("FCVM_DATA_DIR", &self.0).env("SIZE", size).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Bytes that are free, once all is written.
    fn free(&self) -> u64 {
        let directory = File::open(&self.0).unwrap();
        rustix::fs::syncfs(&directory).unwrap();
        let found = rustix::fs::fstatvfs(&directory).unwrap();
        found.f_bfree * found.f_frsize
    }
}

impl Drop for Btrfs {
    fn drop(&mut self) {
        let ended = Command::new("umount").arg(&self.0).status();
        assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn root_on_a_btrfs_in_a_file_copies_take_no_space() {
    if !needs_root() || !needs_programs(&["mkfs.btrfs", "losetup", "findmnt", "mountpoint", "blkid"]) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("mine"), "x").unwrap();
    let btrfs = Btrfs(data.clone());
    let refused = btrfs.set_up("256M").unwrap_err();
    assert!(refused.contains("is not empty") && refused.contains("hint: "), "{refused}");
    fs::remove_file(data.join("mine")).unwrap();
    match btrfs.set_up("256M") {
        Err(error) if error.contains("cannot be mounted") => {
            std::mem::forget(btrfs);
            return skip(format!("no btrfs here: {error}"));
        }
        said => assert!(said.unwrap().contains("of 256M")),
    }
    // Once more it is the same, and larger where that is asked for.
    fs::write(data.join("mine"), "kept").unwrap();
    assert!(btrfs.set_up("256M").unwrap().contains("of 256M"));
    assert!(btrfs.set_up("384M").unwrap().contains("of 384M"));
    assert_eq!(fs::read_to_string(data.join("mine")).unwrap(), "kept");
    assert!(btrfs.set_up("1M").unwrap_err().contains("too little"));

    // What a snapshot's disk is copied by, and a clone's.
    const SIZE: u64 = 64 << 20;
    let (source, target) = (data.join("scratch.raw"), data.join("copy.raw"));
    fs::write(&source, noise(usize::try_from(SIZE).unwrap())).unwrap();
    let free = btrfs.free();
    cow::copy(&source, &target).unwrap();
    assert!(free - btrfs.free() < SIZE / 64, "{} of {free} bytes are free", btrfs.free());
    // They are apart all the same.
    flip(&target, SIZE / 2);
    let same = Command::new("cmp").args(["-s"]).args([&source, &target]).status().unwrap();
    assert_eq!(same.code(), Some(1));

    // A snapshot onto another one: of its memory two pages are new, one of them amid many others.
    const MANY: u64 = 32 << 20;
    let store = Store::open(&DataDir::open(Some(data)).unwrap());
    let make = |name: &str, base: Option<&str>| {
        let mut partial = store.begin(&tag(name)).unwrap();
        if let Some(base) = base {
            partial.share(store.get(&tag(base)).unwrap()).unwrap();
        }
        fill(&partial, Contents::Machine);
        let memory = File::options().write(true).open(partial.path(MEMORY)).unwrap();
        memory.write_all_at(&noise(usize::try_from(MANY).unwrap()), MEMORY_SIZE / 2).unwrap();
        memory.sync_all().unwrap();
        if base.is_some() {
            flip(&partial.path(MEMORY), 64 * 4096 * 3);
            flip(&partial.path(MEMORY), MEMORY_SIZE / 2 + MANY / 2);
        }
        partial.commit(manifest(name)).unwrap()
    };
    let first = make("first", None);
    let free = btrfs.free();
    let second = make("second", Some("first"));
    let base = second.manifest().base.clone().unwrap();
    assert_eq!((&base.tag, &base.id), (first.tag(), &first.manifest().id));
    // A page that was written alone is with three that were not.
    let alone = (MEMORY_SIZE - MANY) / (64 * 4096);
    assert_eq!(base.shared_bytes, (alone - 1) * (16 << 10) + MANY - (16 << 10));
    let taken = free - btrfs.free();
    assert!(taken < 2 << 20, "{taken} bytes");
    assert!(first.verify().unwrap().is_empty() && second.verify().unwrap().is_empty());
    let differing = Command::new("cmp").arg("-l").args([first.path(MEMORY), second.path(MEMORY)]).output();
    assert_eq!(String::from_utf8(differing.unwrap().stdout).unwrap().lines().count(), 2);
    // Neither needs the other.
    drop(first);
    store.remove(&tag("first")).unwrap();
    assert!(second.verify().unwrap().is_empty());
}
