use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::image::{
    spec::{OCI_INDEX, Platform},
    testing::{Layout, layer_bytes, tagged, tarball},
};

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn file(&self, bytes: &[u8]) -> PathBuf {
        let path = self.path("archive");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn layout(&self, layout: &Layout, tag: Option<&str>) -> Result<DiskSource, TransportError> {
        let dir = self.path("layout");
        if dir.exists() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        layout.write(&dir);
        let result = oci_layout(&dir, tag);
        // An archive of the same files must give the same.
        let archived = oci_archive(&self.file(&layout.tar()), tag, &self.path("cache"));
        match (&result, &archived) {
            (Ok(one), Ok(other)) => {
                assert_eq!(one.manifest_digest, other.manifest_digest);
                assert_eq!(layer_bytes(one, 0), layer_bytes(other, 0));
            }
            (Err(one), Err(other)) => {
                assert_eq!(std::mem::discriminant(one), std::mem::discriminant(other), "{one:?} {other:?}");
            }
            _ => panic!("{result:?} {archived:?}"),
        }
        result
    }

    fn docker(&self, bytes: &[u8], reference: Option<&str>) -> Result<DiskSource, TransportError> {
        let reference = reference.map(|text| text.parse().unwrap());
        docker_archive(&self.file(bytes), reference.as_ref(), &self.path("cache"))
    }
}

fn hello(content: &str) -> Vec<u8> {
    tarball(&[("hello", content.as_bytes())])
}

#[test]
fn the_only_image_needs_no_tag() {
    let place = Place::new();
    let source = place.layout(&Layout::with_image("x"), None).unwrap();
    assert_eq!(layer_bytes(&source, 0), hello("x"));
    assert_eq!(Digest::of(&source.manifest), source.manifest_digest);
    assert!(source.names.is_empty());
}

#[test]
fn of_several_images_the_tag_decides() {
    let place = Place::new();
    let mut layout = Layout::default();
    let one = tagged(layout.image(&Platform::host(), "one"), "v1");
    let two = tagged(layout.image(&Platform::host(), "two"), "quay.io/team/app:v2");
    layout.index(&[one, two]);
    let source = place.layout(&layout, Some("v1")).unwrap();
    assert_eq!(layer_bytes(&source, 0), hello("one"));
    assert!(source.names.is_empty(), "a mere tag is no name");
    let source = place.layout(&layout, Some("quay.io/team/app:v2")).unwrap();
    assert_eq!(source.names, ["quay.io/team/app:v2"]);

    let error = place.layout(&layout, None).unwrap_err();
    assert!(matches!(&error, TransportError::WhichImage { known, .. } if known.len() == 2), "{error:?}");
    assert_eq!(error.hint().unwrap(), "name one of `quay.io/team/app:v2`, `v1`");
    let error = place.layout(&layout, Some("v3")).unwrap_err();
    assert!(matches!(error, TransportError::NoImage { .. }), "{error:?}");
    layout.index(&[]);
    assert!(matches!(place.layout(&layout, None), Err(TransportError::Empty { .. })));
}

#[test]
fn of_several_platforms_this_machine_decides() {
    let place = Place::new();
    let mut layout = Layout::default();
    let other: Platform = "linux/s390x".parse().unwrap();
    let unknown: Platform = "unknown/unknown".parse().unwrap();
    let images =
        [&other, &unknown, &Platform::host()].map(|platform| layout.image(platform, &platform.to_string()));
    let bytes = json!({ "schemaVersion": 2, "manifests": images }).to_string();
    let nested = layout.blob(OCI_INDEX, bytes.into());
    layout.index(&[tagged(nested, "multi")]);
    for tag in [None, Some("multi")] {
        let source = place.layout(&layout, tag).unwrap();
        assert_eq!(layer_bytes(&source, 0), hello(&Platform::host().to_string()));
    }
    layout.index(&images[..2]);
    let error = place.layout(&layout, None).unwrap_err();
    assert!(
        matches!(&error, TransportError::NoPlatform { found, .. } if *found == ["linux/s390x"]),
        "{error:?}"
    );
}

#[test]
fn endless_nesting_ends() {
    let mut layout = Layout::default();
    let mut entry = layout.image(&Platform::host(), "x");
    for _ in 0..6 {
        let bytes = json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
        entry = layout.blob(OCI_INDEX, bytes.into());
    }
    layout.index(&[entry]);
    assert!(matches!(Place::new().layout(&layout, None), Err(TransportError::TooDeep { .. })));
}

#[test]
fn dockers_types_are_known_and_others_refused() {
    let place = Place::new();
    let docker = [
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ];
    for (position, wrong) in [(0, "text/plain"), (1, "application/vnd.cncf.helm.config.v1+json"), (2, "x")] {
        let mut layout = Layout::default();
        let image = layout.image_of_types(&Platform::host(), "x", docker);
        layout.index(&[image]);
        assert!(place.layout(&layout, None).is_ok());

        let mut types = docker;
        types[position] = wrong;
        let image = layout.image_of_types(&Platform::host(), "x", types);
        layout.index(&[image]);
        let error = place.layout(&layout, None).unwrap_err();
        assert!(matches!(error, TransportError::MediaType { .. }), "{error:?}");
    }
}

/// Every byte of JSON is behind a digest: changing any blob of an image is noticed.
#[test]
fn changed_blobs_are_refused() {
    let place = Place::new();
    let mut layout = Layout::default();
    let image = layout.image(&Platform::host(), "x");
    let nested =
        layout.blob(OCI_INDEX, json!({ "schemaVersion": 2, "manifests": [image] }).to_string().into());
    layout.index(&[nested]);
    let blobs = layout.files.iter().filter(|(name, bytes)| name.starts_with("blobs") && bytes[0] == b'{');
    let names: Vec<_> = blobs.map(|(name, _)| name.clone()).collect();
    assert_eq!(names.len(), 3, "index, manifest, configuration");
    for name in &names {
        let mut changed = layout.clone();
        let bytes = changed.files.get_mut(name).unwrap();
        let position = bytes.iter().rposition(u8::is_ascii_alphanumeric).unwrap();
        bytes[position] ^= 1;
        let error = place.layout(&changed, None).unwrap_err();
        assert!(matches!(error, TransportError::Digest { .. }), "{name} {error:?}");

        let mut longer = layout.clone();
        longer.files.get_mut(name).unwrap().push(b' ');
        assert!(matches!(place.layout(&longer, None), Err(TransportError::Size { .. })));

        let mut missing = layout.clone();
        missing.files.remove(name);
        assert!(matches!(place.layout(&missing, None), Err(TransportError::Missing { .. })));
    }
}

#[test]
fn a_layer_of_another_size_is_refused_before_it_is_read() {
    let mut layout = Layout::with_image("x");
    for bytes in layout.files.values_mut().filter(|bytes| bytes[0] == b'h') {
        bytes.truncate(512);
    }
    assert!(matches!(Place::new().layout(&layout, None), Err(TransportError::Size { .. })));
}

#[test]
fn hostile_digests_and_sizes_are_refused() {
    let place = Place::new();
    for digest in ["sha256:../../../../etc/passwd", "../../x", "sha512:00"] {
        let mut layout = Layout::with_image("x");
        layout.index(&[
            json!({ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1 }),
        ]);
        assert!(matches!(place.layout(&layout, None), Err(TransportError::Json { .. })), "{digest}");
    }
    let mut layout = Layout::with_image("x");
    layout.files.get_mut("index.json").unwrap().resize(5 << 20, b' ');
    assert!(matches!(place.layout(&layout, None), Err(TransportError::TooLarge { .. })));
}

#[test]
fn what_is_no_layout_is_told_so() {
    let place = Place::new();
    let empty = place.path("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(matches!(oci_layout(&empty, None), Err(TransportError::NotALayout { .. })));
    assert!(matches!(oci_layout(&place.path("none"), None), Err(TransportError::Read { .. })));
    // A pipe in place of a file must not block.
    let pipe = place.path("empty/index.json");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(matches!(oci_layout(&empty, None), Err(TransportError::Read { .. })));
    let rootfs = place.file(&hello("x"));
    assert!(matches!(
        oci_archive(&rootfs, None, &place.path("cache")),
        Err(TransportError::NotALayout { .. })
    ));
}

/// The files of a `docker save` archive with one image of two layers.
fn docker_files(tags: &serde_json::Value, names: [&str; 2]) -> Vec<(String, Vec<u8>)> {
    let layers = [hello("one"), hello("two")];
    let diff_ids = [Digest::of(&layers[0]), Digest::of(&layers[1])];
    let host = Platform::host();
    let config = json!({
        "architecture": host.architecture, "os": host.os, "config": { "Cmd": null },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let config_name = format!("{}.json", Digest::of(config.as_bytes()).hex());
    let manifest = json!([{ "Config": config_name, "RepoTags": tags, "Layers": names }]).to_string();
    let [one, two] = layers;
    vec![
        (names[0].into(), one),
        (names[1].into(), two),
        (config_name, config.into()),
        ("manifest.json".into(), manifest.into()),
    ]
}

fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    tarball(&files)
}

#[test]
fn docker_archives_are_read() {
    let place = Place::new();
    let files = docker_files(&json!(["alpine:3", "quay.io/a/b:c"]), ["a/layer.tar", "b/layer.tar"]);
    let archive = pack(&files);
    let source = place.docker(&archive, None).unwrap();
    assert_eq!(source.names, ["docker.io/library/alpine:3", "quay.io/a/b:c"]);
    assert_eq!(layer_bytes(&source, 1), hello("two"));
    assert_eq!(source.layers[0].digest, Some(Digest::of(&hello("one"))));
    let again = place.docker(&archive, Some("alpine:3")).unwrap();
    assert_eq!(again.manifest, source.manifest, "the same manifest each time");
    assert_eq!(Digest::of(&source.manifest), source.manifest_digest);
    for wrong in ["alpine:4", "b:c"] {
        assert!(matches!(place.docker(&archive, Some(wrong)), Err(TransportError::NoImage { .. })));
    }

    let mut changed = files.clone();
    changed[2].1.push(b' ');
    assert!(matches!(place.docker(&pack(&changed), None), Err(TransportError::Digest { .. })));
    assert!(matches!(place.docker(&pack(&files[1..]), None), Err(TransportError::Missing { .. })));
    for end in [600, 2000, archive.len() - 1500] {
        assert!(place.docker(&archive[..end], None).is_err(), "{end}");
    }
    let mistaken = oci_archive(&place.file(&archive), None, &place.path("cache"));
    assert!(matches!(mistaken, Err(TransportError::IsDockerArchive { .. })));
    let mistaken = place.docker(&Layout::with_image("x").tar(), None);
    assert!(matches!(mistaken, Err(TransportError::IsOciArchive { .. })));
}

/// Docker before 25 writes a layer that two images share once, and links to it.
#[test]
fn layers_may_be_links() {
    let files = docker_files(&json!(null), ["a/layer.tar", "b/layer.tar"]);
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, target) in [(tar::EntryType::Symlink, "../c/layer.tar"), (tar::EntryType::Link, "c/layer.tar")]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        builder.append_link(&mut header, "a/layer.tar", target).unwrap();
    }
    let mut bytes = builder.into_inner().unwrap();
    bytes.truncate(bytes.len() - 1024);
    let mut rest = files;
    rest[0].0 = "c/layer.tar".into();
    bytes.extend(pack(&rest));
    let source = Place::new().docker(&bytes, None).unwrap();
    assert_eq!(layer_bytes(&source, 0), hello("one"));
}

#[test]
fn compressed_layers_have_the_digest_of_what_is_stored() {
    let place = Place::new();
    let mut files = docker_files(&json!(null), ["a/layer.tar", "b/layer.tar"]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&files[0].1).unwrap();
    files[0].1 = gzip.finish().unwrap();
    let source = place.docker(&pack(&files), None).unwrap();
    assert_eq!(source.layers[0].digest, Some(Digest::of(&files[0].1)));
    assert!(String::from_utf8(source.manifest).unwrap().contains("tar+gzip"));
}

/// What other tools write, read by both, must be the same image.
#[test]
fn skopeos_archives_are_read() {
    let available = Command::new("skopeo").arg("--version").output().is_ok_and(|out| out.status.success());
    if !available {
        println!("skipped: no skopeo");
        return;
    }
    let place = Place::new();
    let mut layout = Layout::default();
    let image = tagged(layout.image(&Platform::host(), "x"), "v1");
    layout.index(&[image]);
    layout.write(&place.path("layout"));
    let copy = |to: String| {
        let from = format!("oci:{}:v1", place.path("layout").display());
        let out = Command::new("skopeo").args(["copy", "--insecure-policy", &from, &to]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    let path = |name: &str| place.path(name).display().to_string();
    copy(format!("oci-archive:{}:v2", path("o.tar")));
    copy(format!("docker-archive:{}:localhost/hello:v3", path("d.tar")));
    copy(format!("oci:{}:v4", path("copy")));
    let cache = place.path("cache");
    let original = oci_layout(&place.path("layout"), None).unwrap();
    let archived = oci_archive(&place.path("o.tar"), Some("v2"), &cache).unwrap();
    let docker = docker_archive(&place.path("d.tar"), None, &cache).unwrap();
    let copied = oci_layout(Path::new(&path("copy")), Some("v4")).unwrap();
    for source in [&archived, &docker, &copied] {
        assert_eq!(Digest::of(&source.config), Digest::of(&original.config));
    }
    assert_eq!(docker.names, ["localhost/hello:v3"]);
    assert_eq!(layer_bytes(&docker, 0), hello("x"));
}

#[test]
fn umocis_layouts_are_read() {
    let place = Place::new();
    let layout = place.path("u").display().to_string();
    let umoci = |args: &[&str]| Command::new("umoci").args(args).output();
    if !umoci(&["--version"]).is_ok_and(|out| out.status.success()) {
        println!("skipped: no umoci");
        return;
    }
    let image = format!("{layout}:new");
    let rootfs = place.path("rootfs");
    std::fs::create_dir(&rootfs).unwrap();
    std::fs::write(rootfs.join("hello"), "x").unwrap();
    let rootfs = rootfs.display().to_string();
    for args in [
        &["init", "--layout", layout.as_str()][..],
        &["new", "--image", &image],
        &["insert", "--rootless", "--image", &image, &rootfs, "/"],
    ] {
        let out = umoci(args).unwrap();
        assert!(out.status.success(), "{args:?} {}", String::from_utf8_lossy(&out.stderr));
    }
    let source = oci_layout(Path::new(&layout), Some("new")).unwrap();
    assert_eq!(source.layers.len(), 1);
    assert_eq!(Some(Digest::of(&layer_bytes(&source, 0))), source.layers[0].digest);
}
