//! `fcvm image`, as a user runs it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::Write as _,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use fcvm_testkit::{needs_root, noise, skip};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        Self { dir, data }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fcvm"));
        command.arg("--data-dir").arg(&self.data).arg("image").args(args).env_remove("SOURCE_DATE_EPOCH");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that must succeed, without the last line break.
    fn ok(&self, args: &[&str]) -> String {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?} {}", stderr(&out));
        String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
    }

    fn list(&self) -> Vec<Value> {
        serde_json::from_str(&self.ok(&["ls", "--json"])).unwrap()
    }

    /// All files that hold something of images; names and locks do not.
    fn left(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        for name in ["images", "blobs/sha256"] {
            for entry in std::fs::read_dir(self.data.join(name)).into_iter().flatten() {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                if !["locks", "names.json", "names.lock"].contains(&name.as_str()) {
                    left.push(entry.path());
                }
            }
        }
        left
    }
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn rootfs(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_image_is_imported_listed_and_removed() {
    let place = Place::new();
    let tarball = place.file("r.tar", &rootfs(&[("bin/hello", b"hello"), ("etc/os-release", b"ID=x")]));
    let id = place.ok(&[
        "import",
        "hello",
        &tarball,
        "--cmd",
        "/bin/hello -v",
        "--cmd",
        r#"["a b"]"#,
        "--entrypoint",
        "/init",
        "--env",
        "A=b",
        "--env",
        "C=",
        "--workdir",
        "/srv",
        "--user",
        "1:2",
        "--label",
        "k=v=w",
    ]);
    assert_eq!(id.len(), 71, "{id}");
    let list = place.list();
    assert_eq!(list.len(), 1);
    assert_eq!((&list[0]["names"], &list[0]["id"]), (&json!(["localhost/hello:latest"]), &json!(id)));
    assert_eq!((&list[0]["size"], &list[0]["created"]), (&json!(9), &json!("1970-01-01T00:00:00Z")));
    assert!(list[0]["disk_size"].as_u64().unwrap() > 0);

    let digest = list[0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let config = std::fs::read(place.data.join("images").join(digest).join("config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!(
        config["config"],
        json!({
            "User": "1:2", "Env": ["A=b", "C="], "Entrypoint": ["/init"], "Cmd": ["/bin/hello", "-v", "a b"],
            "WorkingDir": "/srv", "Labels": { "k": "v=w" },
        })
    );
    let table = place.ok(&["ls"]);
    let lines: Vec<_> = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0], ["NAME", "TAG", "ID", "CREATED", "SIZE"]);
    assert_eq!(lines[1], ["localhost/hello", "latest", &id[7..19], "just", "now", "9", "B"]);
    assert_eq!(place.ok(&["list", "-q"]), &id[7..19]);

    let removed = place.ok(&["rm", "hello"]);
    assert!(removed.starts_with("untagged: localhost/hello:latest\ndeleted: sha256:"), "{removed}");
    assert!(place.left().is_empty(), "{:?}", place.left());
    assert_eq!(place.ok(&["ls", "--json"]), "[]");

    let out = place.run(&["rm", "hello", "oci:x"]);
    assert_eq!(out.status.code(), Some(125));
    assert_eq!(stderr(&out).matches("error: no image `").count(), 2, "{}", stderr(&out));
    assert!(place.run(&["rm", "-f", "hello"]).status.success());
    assert_eq!(place.run(&["rm"]).status.code(), Some(2));
    assert_eq!(place.run(&["rm", "UPPER"]).status.code(), Some(2));
}

#[test]
fn every_compression_is_taken_and_the_image_is_the_same_each_time() {
    let place = Place::new();
    let plain = rootfs(&[("hello", b"hello")]);
    let mut files = vec![
        ("plain", plain.clone()),
        ("gzip", gzip(&plain)),
        ("zstd", zstd::encode_all(plain.as_slice(), 1).unwrap()),
    ];
    match Command::new("xz").args(["-c", &place.file("plain", &plain)]).output() {
        Ok(out) if out.status.success() => files.push(("xz", out.stdout)),
        _ => skip("no xz to pack with"),
    }
    let mut ids = Vec::new();
    for (name, bytes) in &files {
        let path = place.file(name, bytes);
        let id = place.ok(&["import", name, &path]);
        assert_eq!(place.ok(&["import", name, &path]), id, "{name}");
        ids.push(id);
    }
    // The configuration has the digest of what is uncompressed.
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(place.list().len(), files.len(), "but manifests differ (zstd and xz by level)");

    let mut child = place
        .command(&["import", "stdin", "-"])
        .env("SOURCE_DATE_EPOCH", "86400")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&plain).unwrap();
    assert!(child.wait().unwrap().success());
    let list = place.list();
    let stdin = list.iter().find(|image| image["names"] == json!(["localhost/stdin:latest"])).unwrap();
    assert_eq!(stdin["created"], "1970-01-02T00:00:00Z");

    let out = place.command(&["import", "x", "x"]).env("SOURCE_DATE_EPOCH", "soon").output().unwrap();
    assert!(stderr(&out).contains("SOURCE_DATE_EPOCH"), "{}", stderr(&out));
}

#[test]
fn a_bad_tarball_is_refused_and_nothing_is_left() {
    let place = Place::new();
    let good = rootfs(&[("hello", &noise(100_000))]);
    let packed = gzip(&good);
    for (what, bytes) in [
        ("empty", &b""[..]),
        ("noise", &noise(10_000)),
        ("cut off", &good[..50_000]),
        ("cut off gzip", &packed[..50_000]),
        ("bzip2", b"BZh91AY&SY"),
        ("empty gzip", &gzip(b"")),
    ] {
        let out = place.run(&["import", "bad", &place.file("bad", bytes)]);
        assert_eq!(out.status.code(), Some(125), "{what} {}", stderr(&out));
        assert!(stderr(&out).contains("error: "), "{what} {}", stderr(&out));
        assert!(out.stdout.is_empty());
        assert!(place.left().is_empty(), "{what} {:?}", place.left());
    }
    let out = place.run(&["import", "bad", "/nonexistent"]);
    assert!(stderr(&out).contains("failed to read `/nonexistent`"), "{}", stderr(&out));
    assert_eq!(place.run(&["import", "Bad", "/x"]).status.code(), Some(2));
}

#[test]
fn a_damaged_disk_is_made_anew_from_stored_blobs() {
    let place = Place::new();
    let path = place.file("r.tar", &rootfs(&[("hello", b"hello")]));
    place.ok(&["import", "hello", &path]);
    let disk =
        place.left().into_iter().map(|path| path.join("disk.ext4")).find(|disk| disk.exists()).unwrap();
    let before = std::fs::read(&disk).unwrap();
    std::fs::write(&disk, "damaged").unwrap();
    let data = fcvm::storage::DataDir::open(Some(place.data.clone())).unwrap();
    let printer = fcvm::output::Printer::from_env();
    let image = "hello".parse().unwrap();
    let stored = fcvm::image::resolve(
        &image,
        fcvm::image::PullPolicy::Missing,
        &fcvm::image::Store::open(&data),
        &fcvm::image::registry::Access::default(),
        &printer,
        &fcvm::image::disk::HostBuilder,
    )
    .unwrap();
    assert_eq!(stored.disk, disk.canonicalize().unwrap());
    assert_eq!(std::fs::read(&disk).unwrap(), before);
}

#[test]
fn processes_that_import_the_same_make_one_disk() {
    let place = Place::new();
    let path = place.file("r.tar", &rootfs(&[("hello", &noise(4_000_000))]));
    let children: Vec<Child> = (0..4)
        .map(|_| {
            let mut command = place.command(&["import", "hello", &path]);
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let outs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    assert!(outs.iter().all(|out| out.status.success() && out.stdout == outs[0].stdout), "{outs:?}");
    let made = outs.iter().filter(|out| stderr(out).contains("preparing image localhost/hello:latest ..."));
    assert_eq!(made.count(), 1);
    assert_eq!(place.list().len(), 1);
}

#[test]
fn after_a_kill_at_any_point_it_works_again() {
    let place = Place::new();
    let path = place.file("r.tar", &rootfs(&[("hello", &noise(48_000_000))]));
    let under = |directory: &str| place.data.join(directory);
    let begun = |directory: &Path| {
        let names =
            std::fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(".tmp-")).count() > 0
    };
    for directory in ["blobs/sha256", "images"] {
        let mut child = place
            .command(&["import", "hello", &path])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while !begun(&under(directory)) {
            assert!(child.try_wait().unwrap().is_none(), "it was done before it was seen to begin");
        }
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(place.list().is_empty());
    }
    place.ok(&["import", "hello", &path]);
    assert_eq!(place.list().len(), 1);
    place.ok(&["rm", "hello"]);
    assert!(place.left().is_empty(), "{:?}", place.left());
}

/// A small file system, gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(path: &Path, size: &str) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let size = format!("size={size}");
        let out = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        out.is_ok_and(|out| out.status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn root_a_full_disk_is_told_and_nothing_is_left() {
    if !needs_root() {
        return;
    }
    let place = Place::new();
    let Some(_mounted) = Mounted::tmpfs(&place.data, "88m") else {
        return skip("no right to mount");
    };
    // Too large for the blob; for the disk at first sight; while the disk is written,
    // which leaves 64 MiB free.
    let repeated: Vec<u8> = b"some text that is no hole\n".repeat(2_000_000);
    for (what, tarball) in [
        ("blob", rootfs(&[("noise", &noise(96_000_000))])),
        ("space", rootfs(&[("noise", &noise(60_000_000))])),
        ("disk", gzip(&rootfs(&[("text", &repeated)]))),
    ] {
        let out = place.run(&["import", "hello", &place.file("r.tar", &tarball)]);
        let text = stderr(&out);
        assert_eq!(out.status.code(), Some(125), "{what} {text}");
        assert!(text.contains("hint: free "), "{what} {text}");
        assert_eq!(text.contains("not enough space in `"), what == "space", "{what} {text}");
        assert!(place.left().is_empty(), "{what} {:?}", place.left());
    }
}
