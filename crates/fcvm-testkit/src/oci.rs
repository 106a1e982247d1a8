//! Images in the forms that `fcvm` takes.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use flate2::{Compression as Level, write::GzEncoder};
use lzma_rust2::{XzOptions, XzWriter};
use serde_json::{Value, json};

use crate::{Layer, sha256};

/// How a layer is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As it is.
    None,
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
    /// xz, which images may not use and Podman reads, under the type of a plain layer
    Xz,
}

/// An image: layers, bottom first, and what a container runs.
#[derive(Debug, Clone, Default)]
pub struct Image {
    layers: Vec<(Vec<u8>, Compression)>,
    config: Value,
    platform: Option<String>,
    history: Value,
}

struct Blob {
    bytes: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest = sha256(bytes.as_slice());
        Self { bytes, digest }
    }

    fn json(value: &Value) -> Self {
        Self::new(serde_json::to_vec(value).unwrap())
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": format!("sha256:{}", self.digest), "size": self.bytes.len() })
    }
}

impl Image {
    /// Without layers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more layer on top, made elsewhere.
    #[must_use]
    pub fn tarball(mut self, tar: Vec<u8>, compression: Compression) -> Self {
        self.layers.push((tar, compression));
        self
    }

    /// With one more layer on top.
    #[must_use]
    pub fn layer(mut self, layer: &Layer, compression: Compression) -> Self {
        self.layers.push((layer.to_tar(), compression));
        self
    }

    /// With all layers stored like this.
    #[must_use]
    pub fn compressed(mut self, compression: Compression) -> Self {
        for (_, stored) in &mut self.layers {
            *stored = compression;
        }
        self
    }

    /// With that `config` of the OCI image configuration.
    #[must_use]
    pub fn config(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// With that `history` of the OCI image configuration.
    #[must_use]
    pub fn history(mut self, history: Value) -> Self {
        self.history = history;
        self
    }

    /// For that platform, `linux/ARCH[/VARIANT]`, and not for this machine.
    #[must_use]
    pub fn platform(mut self, platform: &str) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// `os`, `architecture` and perhaps `variant`.
    fn machine(&self) -> Value {
        let Some(platform) = &self.platform else {
            return json!({ "os": "linux", "architecture": architecture() });
        };
        let mut parts = platform.split('/');
        let mut machine = json!({ "os": parts.next(), "architecture": parts.next() });
        if let Some(variant) = parts.next() {
            machine["variant"] = variant.into();
        }
        machine
    }

    fn configuration(&self) -> Blob {
        let diff_ids: Vec<_> =
            self.layers.iter().map(|(tar, _)| format!("sha256:{}", sha256(tar.as_slice()))).collect();
        let mut configuration = self.machine();
        configuration["config"] = self.config.clone();
        configuration["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        if !self.history.is_null() {
            configuration["history"] = self.history.clone();
        }
        Blob::json(&configuration)
    }

    /// Writes an OCI layout, tagged `latest`, into a new directory.
    pub fn write_layout(&self, directory: &Path) {
        let mut descriptor = self.write_blobs(directory);
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        write_index_json(directory, &descriptor);
    }

    /// Writes an OCI layout with an index of images for several platforms, tagged `latest`, into
    /// a new directory.
    pub fn write_index(images: &[Self], directory: &Path) {
        let manifests: Vec<_> = images
            .iter()
            .map(|image| {
                let mut descriptor = image.write_blobs(directory);
                descriptor["platform"] = image.machine();
                descriptor
            })
            .collect();
        const INDEX: &str = "application/vnd.oci.image.index.v1+json";
        let index = Blob::json(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }));
        fs::write(directory.join("blobs/sha256").join(&index.digest), &index.bytes).unwrap();
        let mut descriptor = index.descriptor(INDEX);
        descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "latest" });
        write_index_json(directory, &descriptor);
    }

    /// Writes the image's blobs; the manifest's descriptor.
    fn write_blobs(&self, directory: &Path) -> Value {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        let store = |blob: &Blob| fs::write(blobs.join(&blob.digest), &blob.bytes).unwrap();
        let configuration = self.configuration();
        store(&configuration);
        let layers: Vec<_> = self
            .layers
            .iter()
            .map(|(tar, compression)| {
                let (bytes, suffix) = match compression {
                    Compression::None => (tar.clone(), ""),
                    Compression::Gzip => {
                        let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
                        encoder.write_all(tar).unwrap();
                        (encoder.finish().unwrap(), "+gzip")
                    }
                    Compression::Xz => {
                        let mut encoder = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
                        encoder.write_all(tar).unwrap();
                        (encoder.finish().unwrap(), "")
                    }
                    Compression::Zstd => (zstd::encode_all(tar.as_slice(), 1).unwrap(), "+zstd"),
                };
                let blob = Blob::new(bytes);
                store(&blob);
                blob.descriptor(&format!("application/vnd.oci.image.layer.v1.tar{suffix}"))
            })
            .collect();
        let manifest = Blob::json(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": configuration.descriptor("application/vnd.oci.image.config.v1+json"), "layers": layers,
        }));
        store(&manifest);
        manifest.descriptor("application/vnd.oci.image.manifest.v1+json")
    }

    /// Writes an OCI layout in a tar file; `spoil` changes the bytes of files in it by their paths.
    pub fn write_archive(&self, file: &Path, mut spoil: impl FnMut(&str, &mut Vec<u8>)) {
        let directory = tempfile::tempdir().unwrap();
        self.write_layout(directory.path());
        let mut paths = Vec::new();
        collect(directory.path(), &mut paths);
        paths.sort();
        let mut tar = tar::Builder::new(Vec::new());
        for path in paths {
            let name = path.strip_prefix(directory.path()).unwrap().to_str().unwrap().to_owned();
            let mut bytes = fs::read(&path).unwrap();
            spoil(&name, &mut bytes);
            append(&mut tar, &name, &bytes);
        }
        fs::write(file, tar.into_inner().unwrap()).unwrap();
    }

    /// Writes what `docker save` writes, of an image `name`.
    pub fn write_docker_archive(&self, file: &Path, name: &str) {
        let configuration = self.configuration();
        let mut tar = tar::Builder::new(Vec::new());
        let mut layers = Vec::new();
        for (index, (bytes, _)) in self.layers.iter().enumerate() {
            let path = format!("{index}/layer.tar");
            append(&mut tar, &path, bytes);
            layers.push(path);
        }
        let config = format!("{}.json", configuration.digest);
        append(&mut tar, &config, &configuration.bytes);
        let manifest = json!([{ "Config": config, "RepoTags": [name], "Layers": layers }]);
        append(&mut tar, "manifest.json", &serde_json::to_vec(&manifest).unwrap());
        fs::write(file, tar.into_inner().unwrap()).unwrap();
    }
}

/// This machine's, as Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn write_index_json(directory: &Path, descriptor: &Value) {
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(directory.join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, bytes).unwrap();
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap()) {
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), paths);
        } else {
            paths.push(entry.path());
        }
    }
}
