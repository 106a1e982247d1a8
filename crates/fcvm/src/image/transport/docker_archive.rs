//! Archives as `docker save` writes them.
//!
//! `manifest.json` lists images: a configuration and layers, each a file of the
//! archive. Old versions name layers `ID/layer.tar`, some of them links to
//! others; `podman save` names them by digest; since version 25 Docker writes
//! them as blobs of an OCI layout, with `manifest.json` beside it.
//!
//! There is no OCI manifest for the image, so one is made of what there is. The
//! same content gives the same bytes, hence the same digest, each time.

use std::io::Read as _;

use serde::Deserialize;

use super::{
    TransportError,
    decompress::Magic,
    files::{Files, json},
    oci::check_layer_count,
};
use crate::{
    hash::Digest,
    image::{
        model::{Compression, DiskSource, LayerSource},
        name::{FullName, ImageName},
        spec::{
            Descriptor, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD,
            OCI_MANIFEST,
        },
    },
};

const MANIFEST: &str = "manifest.json";

/// An image of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The image of that name, or the only one.
pub(super) fn read(files: &dyn Files, reference: Option<&ImageName>) -> Result<DiskSource, TransportError> {
    image(files, choose(files, items(files)?, reference)?)
}

/// All images.
pub(super) fn read_all(files: &dyn Files) -> Result<Vec<DiskSource>, TransportError> {
    let items = items(files)?;
    if items.is_empty() {
        return Err(TransportError::Empty { path: files.path().to_owned() });
    }
    items.into_iter().map(|item| image(files, item)).collect()
}

fn items(files: &dyn Files) -> Result<Vec<Item>, TransportError> {
    let bytes = files.read(MANIFEST).map_err(|error| match error {
        TransportError::Missing { path, .. } => TransportError::NotALayout { path, missing: MANIFEST },
        error => error,
    })?;
    json(files, MANIFEST, &bytes)
}

fn image(files: &dyn Files, item: Item) -> Result<DiskSource, TransportError> {
    let config = files.read(&item.config)?;
    if let Some(digest) = digest_in(&item.config) {
        files.check_digest(&item.config, digest, &config)?;
    }
    let parsed: ImageConfig = json(files, &item.config, &config)?;
    let names = item.repo_tags.as_deref().unwrap_or_default();
    let names = names.iter().filter_map(|name| full_name(name)).map(|name| name.to_string()).collect();
    let layers = item.layers.unwrap_or_default();
    check_layer_count(files, layers.len(), &parsed)?;

    let mut descriptors = Vec::new();
    let mut sources = Vec::new();
    for (name, &diff_id) in layers.iter().zip(&parsed.rootfs.diff_ids) {
        let (descriptor, source) = layer(files, name, diff_id)?;
        descriptors.push(descriptor);
        sources.push(source);
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.into()),
        config: descriptor(OCI_CONFIG, Digest::of(&config), config.len() as u64),
        layers: descriptors,
    };
    let manifest = serde_json::to_vec(&manifest).map_err(|source| TransportError::Json {
        path: files.path().to_owned(),
        name: MANIFEST.into(),
        source,
    })?;
    Ok(DiskSource { manifest_digest: Digest::of(&manifest), manifest, config, names, layers: sources })
}

fn choose(
    files: &dyn Files,
    mut items: Vec<Item>,
    reference: Option<&ImageName>,
) -> Result<Item, TransportError> {
    let path = || files.path().to_owned();
    let known: Vec<_> =
        items.iter().flat_map(|item| item.repo_tags.iter().flatten()).map(ToOwned::to_owned).collect();
    let Some(reference) = reference else {
        return match (items.pop(), items.is_empty()) {
            (Some(item), true) => Ok(item),
            (Some(_), false) => Err(TransportError::WhichImage { path: path(), known }),
            (None, _) => Err(TransportError::Empty { path: path() }),
        };
    };
    let wanted = [reference.at("localhost"), reference.of_docker()];
    let has = |item: &Item, wanted: &FullName| {
        item.repo_tags.iter().flatten().filter_map(|name| full_name(name)).any(|name| name == *wanted)
    };
    wanted
        .iter()
        .find_map(|wanted| items.iter().position(|item| has(item, wanted)))
        .map(|position| items.swap_remove(position))
        .ok_or_else(|| TransportError::NoImage { path: path(), wanted: reference.to_string(), known })
}

/// Docker drops `docker.io/library/` from the names it writes, and nothing else.
fn full_name(name: &str) -> Option<FullName> {
    let name = name.parse::<ImageName>().ok()?;
    name.digest().is_none().then(|| name.of_docker())
}

/// A layer, and what the manifest says of it.
fn layer(
    files: &dyn Files,
    name: &str,
    diff_id: Digest,
) -> Result<(Descriptor, LayerSource), TransportError> {
    let failed = |source| TransportError::Read { path: files.path().to_owned(), source };
    let found = files.find(name)?;
    let mut head = Vec::new();
    (found.open)()
        .and_then(|reader| reader.take(Magic::LENGTH as u64).read_to_end(&mut head))
        .map_err(failed)?;
    let (media_type, compression) = match Magic::of(&head) {
        Magic::Gzip => (OCI_LAYER_GZIP, Compression::Gzip),
        Magic::Zstd => (OCI_LAYER_ZSTD, Compression::Zstd),
        _ => (OCI_LAYER, Compression::None),
    };
    let digest = match compression {
        // The tar stream itself: the configuration has its digest.
        Compression::None => diff_id,
        _ => match digest_in(name) {
            Some(digest) if digest != diff_id => digest,
            // Named by what it would be if unpacked, or not at all.
            _ => (found.open)().and_then(|mut reader| Digest::of_reader(&mut reader)).map_err(failed)?,
        },
    };
    let source = LayerSource { digest: Some(digest), size: Some(found.size), compression, open: found.open };
    Ok((descriptor(media_type, digest, found.size), source))
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest,
        size,
        platform: None,
        annotations: std::collections::BTreeMap::new(),
    }
}

/// The digest in `HEX.json`, `HEX.tar` or `blobs/sha256/HEX`.
fn digest_in(name: &str) -> Option<Digest> {
    let stem = name.rsplit('/').next()?.split('.').next()?;
    format!("sha256:{stem}").parse().ok()
}
