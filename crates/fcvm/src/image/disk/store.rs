//! The files around the layers, as containers/storage reads them.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    hash::Digest,
    image::model::DiskSource,
    storage::ext4::{Ext4Error, Ext4Writer, Metadata, Totals},
};

/// Where things are in the store of an image.
pub(super) struct Store<'a> {
    image: &'a DiskSource,
    created: Timestamp,
    /// The id of the only layer, into which all are merged.
    layer: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Layer<'a> {
    id: &'a str,
    created: String,
    diff_digest: String,
    diff_size: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Image<'a> {
    id: String,
    digest: Digest,
    layer: &'a str,
    metadata: &'static str,
    big_data_names: Vec<String>,
    big_data_sizes: BTreeMap<String, usize>,
    big_data_digests: BTreeMap<String, Digest>,
    created: String,
}

impl<'a> Store<'a> {
    pub(super) fn new(image: &'a DiskSource, diff_ids: &[Digest], created: Timestamp) -> Self {
        let diff_ids: Vec<_> = diff_ids.iter().map(Digest::to_string).collect();
        // A digest no archive has: were it that of a layer, this one would be taken for it when
        // another image is pulled into a store above.
        let layer = Digest::of(format!("fcvm merged layers {}", diff_ids.join(" ")).as_bytes()).hex();
        Self { image, created, layer }
    }

    /// Where the merged layers go.
    pub(super) fn content(&self) -> String {
        format!("overlay/{}/diff", self.layer)
    }

    /// Writes everything but the content, which is there already.
    pub(super) fn write(&self, writer: &mut Ext4Writer, content: Totals) -> Result<(), Ext4Error> {
        let Self { image, created, layer } = self;
        let id = Digest::of(&image.config).hex();
        // Containers name the layers they are made of by this short name, through `overlay/l`.
        let link = short_name(layer);
        put(writer, &format!("overlay/{layer}/link"), link.as_bytes())?;
        let target = format!("../{layer}/diff");
        let link = format!("overlay/l/{link}");
        writer.symlink(link.as_bytes(), &Metadata::root(0o777), target.as_bytes())?;

        let layers = [Layer {
            id: layer,
            created: created.to_string(),
            diff_digest: format!("sha256:{layer}"),
            diff_size: content.bytes,
        }];
        put(writer, "overlay-layers/layers.json", &json(&layers))?;
        let data = [
            (format!("manifest-{}", image.manifest_digest), &image.manifest),
            ("manifest".to_owned(), &image.manifest),
            (format!("sha256:{id}"), &image.config),
        ];
        let images = [Image {
            id: id.clone(),
            digest: image.manifest_digest,
            layer,
            metadata: "{}",
            big_data_names: data.iter().map(|(name, _)| name.clone()).collect(),
            big_data_sizes: data.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect(),
            big_data_digests: data.iter().map(|(name, bytes)| (name.clone(), Digest::of(bytes))).collect(),
            created: created.to_string(),
        }];
        put(writer, "overlay-images/images.json", &json(&images))?;
        for (name, bytes) in data {
            put(writer, &format!("overlay-images/{id}/{}", file_name(&name)), bytes)?;
        }
        // Opened, and locked for reading, even where nothing can be written.
        put(writer, "overlay-images/images.lock", b"")?;
        put(writer, "overlay-layers/layers.lock", b"")
    }
}

fn put(writer: &mut Ext4Writer, path: &str, mut bytes: &[u8]) -> Result<(), Ext4Error> {
    writer.file(path.as_bytes(), &Metadata::root(0o644), bytes.len() as u64, &mut bytes)
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers can always be written as JSON")
}

/// The name of a file that holds a piece of data: what is more than lower-case letters, digits
/// and dots is encoded.
fn file_name(data: &str) -> String {
    let plain = |byte: u8| byte == b'.' || byte.is_ascii_digit() || byte.is_ascii_lowercase();
    if data.bytes().all(plain) { data.to_owned() } else { format!("={}", BASE64_STANDARD.encode(data)) }
}

/// 26 upper-case letters and digits, from a layer's id.
fn short_name(layer: &str) -> String {
    let mut name = Digest::of(layer.as_bytes()).hex().to_ascii_uppercase();
    name.truncate(26);
    name
}
