//! Disks, judged by e2fsck, by Podman, and by what others unpack.

mod errors;
mod podman;
mod reference;

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::json;

use super::build;
use crate::{
    hash::Digest,
    image::model::{Compression, DiskSource, DiskStats, LayerSource},
    storage::ext4::testing::check,
};

/// An image put together in memory.
pub(super) struct Fixture {
    pub(super) config: Vec<u8>,
    pub(super) manifest: Vec<u8>,
    /// As stored, and how.
    pub(super) layers: Vec<(Vec<u8>, Compression)>,
}

impl Fixture {
    /// An image of these archives, each compressed in another way.
    pub(super) fn new(archives: &[Vec<u8>]) -> Self {
        Self::compressed(archives, &[Compression::Gzip, Compression::Zstd, Compression::None])
    }

    /// An image of these archives, compressed in these ways in turn.
    pub(super) fn compressed(archives: &[Vec<u8>], ways: &[Compression]) -> Self {
        let ways = ways.iter().copied().cycle();
        let layers: Vec<_> = archives.iter().zip(ways).map(|(tar, way)| (compress(tar, way), way)).collect();
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-05-06T07:08:09.5Z",
            "config": { "Cmd": ["/bin/sh", "-c", "cat /greeting; echo $WHO"], "Env": ["PATH=/bin", "WHO=world"] },
            "rootfs": {
                "type": "layers",
                "diff_ids": archives.iter().map(|tar| Digest::of(tar)).collect::<Vec<_>>(),
            },
        });
        let config = serde_json::to_vec(&config).unwrap();
        let descriptors = layers.iter().map(|(bytes, way)| {
            json!({ "mediaType": media_type(*way), "digest": Digest::of(bytes), "size": bytes.len() })
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Digest::of(&config),
                "size": config.len(),
            },
            "layers": descriptors.collect::<Vec<_>>(),
        });
        Self { config, manifest: serde_json::to_vec(&manifest).unwrap(), layers }
    }

    pub(super) fn source(&self) -> DiskSource {
        let layers = self.layers.iter().map(|(bytes, way)| layer(bytes.clone(), *way));
        DiskSource {
            manifest_digest: Digest::of(&self.manifest),
            manifest: self.manifest.clone(),
            config: self.config.clone(),
            names: vec!["localhost/fixture:latest".into()],
            layers: layers.collect(),
        }
    }

    /// Writes the image as an OCI layout.
    pub(super) fn layout(&self, directory: &Path) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let all = self.layers.iter().map(|(bytes, _)| bytes).chain([&self.config, &self.manifest]);
        for bytes in all {
            fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
        }
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": Digest::of(&self.manifest),
                "size": self.manifest.len(),
                "annotations": { "org.opencontainers.image.ref.name": "latest" },
            }],
        });
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
    }
}

pub(super) fn layer(bytes: Vec<u8>, compression: Compression) -> LayerSource {
    LayerSource {
        digest: Some(Digest::of(&bytes)),
        size: Some(bytes.len() as u64),
        compression,
        open: Box::new(move || Ok(Box::new(io::Cursor::new(bytes.clone())))),
    }
}

pub(super) fn compress(bytes: &[u8], way: Compression) -> Vec<u8> {
    match way {
        Compression::Gzip => {
            // Two members, as parallel compressors write them.
            let (one, two) = bytes.split_at(bytes.len() / 2);
            let member = |part: &[u8]| {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(part).unwrap();
                encoder.finish().unwrap()
            };
            [member(one), member(two)].concat()
        }
        Compression::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        Compression::None | Compression::Detect => bytes.to_vec(),
    }
}

fn media_type(way: Compression) -> &'static str {
    match way {
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        Compression::None | Compression::Detect => "application/vnd.oci.image.layer.v1.tar",
    }
}

/// A disk, built and checked.
pub(super) struct Disk {
    pub(super) path: PathBuf,
    pub(super) stats: DiskStats,
    _directory: tempfile::TempDir,
}

pub(super) fn disk(source: &DiskSource) -> Disk {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.ext4");
    let stats = build(&path, source).unwrap();
    check(&path);
    Disk { path, stats, _directory: directory }
}

/// The entries of an archive, with all that layers hold.
pub(super) struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub(super) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    pub(super) fn add(
        mut self,
        kind: tar::EntryType,
        path: &str,
        mode: u32,
        set: impl FnOnce(&mut tar::Header),
        mut content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_500_000_000 + path.len() as u64);
        header.set_size(content.len() as u64);
        set(&mut header);
        header.set_path(path).unwrap();
        header.set_cksum();
        let content: &mut dyn Read = &mut content;
        self.0.append(&header, content).unwrap();
        self
    }

    pub(super) fn dir(self, path: &str, mode: u32) -> Self {
        self.add(tar::EntryType::Directory, path, mode, |_| {}, b"")
    }

    pub(super) fn file(self, path: &str, mode: u32, content: &[u8]) -> Self {
        self.add(tar::EntryType::Regular, path, mode, |_| {}, content)
    }

    pub(super) fn link(self, kind: tar::EntryType, path: &str, target: &str) -> Self {
        self.add(kind, path, 0o777, |header| header.set_link_name(target).unwrap(), b"")
    }

    pub(super) fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.0.append_pax_extensions([(format!("SCHILY.xattr.{name}").as_str(), value)]).unwrap();
        self
    }

    pub(super) fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

/// Three layers in which everything happens that can.
pub(super) fn eventful() -> Vec<Vec<u8>> {
    use tar::EntryType as Type;
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let owned = |header: &mut tar::Header| {
        header.set_uid(1000);
        header.set_gid(1001);
    };
    let device = |header: &mut tar::Header| {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    };
    let big: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let base = Archive::new()
        .dir("./", 0o755)
        .dir("bin/", 0o755)
        .dir("etc/", 0o755)
        .file("etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\n")
        .file("etc/removed", 0o644, b"gone")
        .dir("opaque/", 0o700)
        .file("opaque/old", 0o644, b"old")
        .dir("opaque/sub/", 0o755)
        .file("opaque/sub/old", 0o644, b"old")
        .dir("dir-to-file/", 0o755)
        .file("dir-to-file/x", 0o644, b"x")
        .file("file-to-dir", 0o644, b"x")
        .dir("var/", 0o755)
        .dir("var/empty/", 0o511)
        .dir("var/tmp/", 0o1777)
        .add(Type::Regular, "owned", 0o640, owned, b"owned")
        .file("big", 0o644, &big)
        .file("zeros", 0o644, &[0; 200_000])
        .file("setuid", 0o4755, b"#!")
        .file("setgid", 0o2711, b"#!")
        .xattr("security.capability", &capability)
        .file("capable", 0o755, b"c")
        .xattr("user.note", b"some\0thing")
        .dir("noted/", 0o755)
        .link(Type::Link, "etc/hard", "etc/passwd")
        .link(Type::Symlink, "etc/soft", "../big")
        .link(Type::Symlink, "etc/abs", "/etc/passwd")
        .add(Type::Char, "null", 0o666, device, b"")
        .add(Type::Fifo, "fifo", 0o600, |_| {}, b"");
    let middle = Archive::new()
        .file("etc/.wh.removed", 0o644, b"")
        .dir("opaque/", 0o750)
        .file("opaque/.wh..wh..opq", 0o644, b"")
        .file("opaque/new", 0o644, b"new")
        .file("dir-to-file", 0o600, b"now a file")
        .dir("file-to-dir/", 0o755)
        .file("file-to-dir/inside", 0o644, b"inside")
        .link(Type::Link, "hard-across", "etc/passwd")
        .file("big", 0o644, b"small now")
        .dir("var/", 0o711);
    let top = Archive::new()
        .file("etc/passwd", 0o644, b"root:x:0:0::/root:/bin/sh\n")
        .file(".wh.dir-to-file", 0o644, b"")
        .file("opaque/.wh.new", 0o644, b"")
        .file("greeting", 0o444, b"hello\n")
        .dir("last/", 0o755)
        .link(Type::Link, "last/hard", "etc/hard");
    [base, middle, top].map(Archive::bytes).into()
}
