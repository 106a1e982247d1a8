//! Images made by tests.

use std::{collections::BTreeMap, io::Read as _, path::Path};

use serde_json::{Value, json};

use super::{
    model::DiskSource,
    spec::{OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Platform},
};
use crate::hash::Digest;

/// The files of an OCI layout.
#[derive(Debug, Clone, Default)]
pub(super) struct Layout {
    pub(super) files: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    /// A layout with one image, whose layer holds a file `hello` with that content.
    pub(super) fn with_image(content: &str) -> Self {
        let mut layout = Self::default();
        let image = layout.image(&Platform::host(), content);
        layout.index(&[image]);
        layout
    }

    pub(super) fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let digest = Digest::of(&bytes);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.files.insert(format!("blobs/sha256/{}", digest.hex()), bytes);
        descriptor
    }

    /// An image; its descriptor.
    pub(super) fn image(&mut self, platform: &Platform, content: &str) -> Value {
        self.image_of_types(platform, content, [OCI_MANIFEST, OCI_CONFIG, OCI_LAYER])
    }

    pub(super) fn image_of_types(
        &mut self,
        platform: &Platform,
        content: &str,
        [manifest, config, layer]: [&str; 3],
    ) -> Value {
        let tar = tarball(&[("hello", content.as_bytes())]);
        let diff_id = Digest::of(&tar);
        let layer = self.blob(layer, tar);
        let bytes = json!({
            "architecture": platform.architecture, "os": platform.os, "config": { "Cmd": ["/hello"] },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        let config = self.blob(config, bytes.to_string().into());
        let bytes = json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [layer] });
        let mut descriptor = self.blob(manifest, bytes.to_string().into());
        descriptor["platform"] = json!(platform);
        descriptor
    }

    /// Writes `index.json`.
    pub(super) fn index(&mut self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests });
        self.files.insert("index.json".into(), index.to_string().into());
        self.files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    }

    pub(super) fn write(&self, dir: &Path) {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(super) fn tar(&self) -> Vec<u8> {
        let files: Vec<_> =
            self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        tarball(&files)
    }
}

/// With a tag.
pub(super) fn tagged(mut descriptor: Value, tag: &str) -> Value {
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": tag });
    descriptor
}

pub(super) fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

/// The bytes of a layer, as stored.
pub(super) fn layer_bytes(source: &DiskSource, layer: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    (source.layers[layer].open)().unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}
