//! Podman reads disks as additional image stores, and runs what is in them.

use std::process::{Command, Output};

use serde_json::Value;

use super::*;
use crate::storage::ext4::testing::Mount;

/// A Podman with nothing of its own but a disk to read images from.
struct Podman {
    scratch: tempfile::TempDir,
    _mount: Mount,
}

impl Podman {
    fn new(disk: &Disk) -> Option<Self> {
        if Command::new("podman").arg("--version").output().is_err() {
            eprintln!("skipped: no podman");
            return None;
        }
        let mount = Mount::new(&disk.path)?;
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).display().to_string();
        let config = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n\
             [storage.options]\nadditionalimagestores = [{:?}]\n",
            path("graph"),
            path("run"),
            mount.path.display().to_string(),
        );
        fs::write(path("storage.conf"), config).unwrap();
        Some(Self { scratch, _mount: mount })
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new("podman")
            .env("CONTAINERS_STORAGE_CONF", self.scratch.path().join("storage.conf"))
            .args(arguments)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["rm", "--all", "--force"]);
        // Overlay keeps its directory mounted.
        let mounted = self.scratch.path().join("graph/overlay");
        Command::new("umount").arg("-q").arg(mounted).status().unwrap();
    }
}

#[test]
fn podman_runs_what_is_on_a_disk() {
    let Ok(busybox) = fs::read("/bin/busybox") else {
        eprintln!("skipped: no /bin/busybox to put into an image");
        return;
    };
    let mut layers = eventful();
    layers.push(
        Archive::new()
            .file("bin/busybox", 0o755, &busybox)
            .link(tar::EntryType::Symlink, "bin/sh", "busybox")
            .link(tar::EntryType::Symlink, "bin/cat", "busybox")
            .link(tar::EntryType::Symlink, "bin/ls", "busybox")
            .bytes(),
    );
    let fixture = Fixture::new(&layers);
    let disk = disk(&fixture.source());
    let Some(podman) = Podman::new(&disk) else { return };
    let id = Digest::of(&fixture.config).hex();

    let images = podman.json(&["images", "--format=json"]);
    assert_eq!(images[0]["Id"], id.as_str());
    assert_eq!(images[0]["Names"], serde_json::Value::Null, "the same disk whatever the name");
    assert_eq!(images[0]["ReadOnly"], true);
    assert_eq!(images[0]["Size"].as_u64().unwrap() / 10_000, disk.stats.unpacked / 10_000);
    let image = &podman.json(&["inspect", &id])[0];
    assert_eq!(image["Digest"], Digest::of(&fixture.manifest).to_string());
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 4);
    assert_eq!(image["Created"], "2024-05-06T07:08:09.5Z");

    let run = |command: &[&str]| {
        // `runc` and limits within what a restricted host allows; what is tested is the store.
        let fixed = ["--runtime=runc", "run", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"];
        let rest = ["--network=none", "--pull=never", &id];
        podman.run(&[&fixed[..], &rest[..], command].concat())
    };
    let output = run(&[]);
    if Command::new("runc").arg("--version").output().is_err() {
        eprintln!("skipped: no runc to run containers with");
        return;
    }
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\nworld\n", "{output:?}");
    let output =
        run(&["sh", "-c", "echo more >> /etc/passwd && cat /etc/passwd && ls /opaque /last; exit 7"]);
    assert_eq!(output.status.code(), Some(7));
    let expected = "root:x:0:0::/root:/bin/sh\nmore\n/last:\nhard\n\n/opaque:\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn images_without_layers_are_images() {
    let disk = disk(&Fixture::new(&[]).source());
    assert_eq!((disk.stats.files, disk.stats.unpacked), (1, 0));
    let Some(podman) = Podman::new(&disk) else { return };
    assert_eq!(podman.json(&["images", "--format=json"]).as_array().unwrap().len(), 1);
}
