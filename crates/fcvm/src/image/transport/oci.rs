//! OCI image layouts, in a directory or an archive.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md>

use super::{
    TransportError,
    files::{Files, blob_name, json},
};
use crate::image::{
    model::{Compression, DiskSource, LayerSource},
    name::{FullName, Reference},
    spec::{Descriptor, ImageConfig, Index, Kind, MAX_JSON, Manifest, Platform},
};

const INDEX: &str = "index.json";
/// The tag, by the specification.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, as containerd and Docker write it beside the tag.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
const MAX_DEPTH: usize = 4;

/// The image with that tag, or the only one.
pub(super) fn read(files: &dyn Files, tag: Option<&str>) -> Result<DiskSource, TransportError> {
    one(files, by_tag(files, index(files)?.manifests, tag)?)
}

/// All images, each once: those of a tag are one, for several platforms, and so are those without.
pub(super) fn read_all(files: &dyn Files) -> Result<Vec<DiskSource>, TransportError> {
    let entries = index(files)?.manifests;
    if entries.is_empty() {
        return Err(TransportError::Empty { path: files.path().to_owned() });
    }
    let mut tags: Vec<Option<String>> = Vec::new();
    for tag in entries.iter().map(|entry| tag_of(entry).map(ToOwned::to_owned)) {
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    let mut images: Vec<DiskSource> = Vec::new();
    for tag in tags {
        let same: Vec<_> = entries.iter().filter(|entry| tag_of(entry) == tag.as_deref()).cloned().collect();
        let by_platform = same.iter().all(|entry| entry.platform.is_some());
        let groups =
            if by_platform { vec![same] } else { same.into_iter().map(|entry| vec![entry]).collect() };
        for group in groups {
            let found = one(files, group)?;
            match images.iter_mut().find(|image| image.manifest_digest == found.manifest_digest) {
                Some(image) => image.names.extend(found.names),
                None => images.push(found),
            }
        }
    }
    Ok(images)
}

fn index(files: &dyn Files) -> Result<Index, TransportError> {
    let index = files.read(INDEX).map_err(|error| match error {
        TransportError::Missing { path, .. } => TransportError::NotALayout { path, missing: INDEX },
        error => error,
    })?;
    json(files, INDEX, &index)
}

/// The image for this machine of entries that are one image.
fn one(files: &dyn Files, entries: Vec<Descriptor>) -> Result<DiskSource, TransportError> {
    let names = names(&entries);
    let chosen = by_platform(files, entries, &Platform::host())?;
    image(files, &chosen, names)
}

/// The entries of a tag; without one, all, provided that they are one image.
fn by_tag(
    files: &dyn Files,
    entries: Vec<Descriptor>,
    tag: Option<&str>,
) -> Result<Vec<Descriptor>, TransportError> {
    let path = || files.path().to_owned();
    let mut known: Vec<_> = entries.iter().filter_map(tag_of).map(ToOwned::to_owned).collect();
    known.sort_unstable();
    known.dedup();
    let Some(tag) = tag else {
        // Entries of one tag, or without any, may differ by platform.
        let untagged = entries.iter().any(|entry| tag_of(entry).is_none());
        let told_by_platform = entries.len() <= 1
            || (entries.iter().all(|entry| entry.platform.is_some())
                && known.len() + usize::from(untagged) <= 1);
        return match (entries.is_empty(), told_by_platform) {
            (true, _) => Err(TransportError::Empty { path: path() }),
            (_, true) => Ok(entries),
            (_, false) => Err(TransportError::WhichImage { path: path(), known }),
        };
    };
    let named = |entry: &Descriptor| {
        [REF_NAME, CONTAINERD_NAME].iter().any(|&key| entry.annotations.get(key).is_some_and(|v| v == tag))
    };
    let found: Vec<_> = entries.into_iter().filter(named).collect();
    if found.is_empty() {
        return Err(TransportError::NoImage { path: path(), wanted: tag.to_owned(), known });
    }
    Ok(found)
}

fn tag_of(entry: &Descriptor) -> Option<&str> {
    [REF_NAME, CONTAINERD_NAME].iter().find_map(|&key| entry.annotations.get(key)).map(String::as_str)
}

/// Full names among the annotations. A mere tag says nothing of the image's name.
fn names(entries: &[Descriptor]) -> Vec<String> {
    let mut names: Vec<_> = entries
        .iter()
        .flat_map(|entry| [CONTAINERD_NAME, REF_NAME].map(|key| entry.annotations.get(key)))
        .flatten()
        .filter_map(|name| name.parse::<FullName>().ok())
        .filter(|name| matches!(name.reference(), Reference::Tag(_)))
        .map(|name| name.to_string())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The manifest for such a machine, indexes within indexes followed.
pub(in crate::image) fn by_platform(
    files: &dyn Files,
    entries: Vec<Descriptor>,
    wanted: &Platform,
) -> Result<Descriptor, TransportError> {
    within(files, entries, wanted, MAX_DEPTH)
}

fn within(
    files: &dyn Files,
    entries: Vec<Descriptor>,
    wanted: &Platform,
    depth: usize,
) -> Result<Descriptor, TransportError> {
    let path = || files.path().to_owned();
    if entries.is_empty() {
        return Err(TransportError::Empty { path: path() });
    }
    let alone = entries.len() == 1;
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(platform) => platform.rank_for(wanted),
        // Nothing is said: tried only where there is no choice.
        None => alone.then_some(0),
    };
    let best = entries.iter().filter_map(|entry| rank(entry).map(|rank| (rank, entry))).min_by_key(|e| e.0);
    let Some((_, best)) = best else {
        let found = entries.iter().filter_map(|entry| entry.platform.as_ref());
        let found = found.filter(|platform| platform.os != "unknown").map(ToString::to_string).collect();
        return Err(TransportError::NoPlatform { path: path(), wanted: wanted.clone(), found });
    };
    match Kind::of(&best.media_type) {
        Kind::Manifest => Ok(best.clone()),
        Kind::Index => {
            let depth = depth.checked_sub(1).ok_or_else(|| TransportError::TooDeep { path: path() })?;
            let bytes = files.read_blob(best)?;
            let index: Index = json(files, &blob_name(&best.digest), &bytes)?;
            within(files, index.manifests, wanted, depth)
        }
        _ => Err(wrong_type(files, best)),
    }
}

/// Manifest, configuration and layers of a descriptor.
pub(in crate::image) fn image(
    files: &dyn Files,
    chosen: &Descriptor,
    names: Vec<String>,
) -> Result<DiskSource, TransportError> {
    let path = || files.path().to_owned();
    let bytes = files.read_blob(chosen)?;
    let manifest: Manifest = json(files, &blob_name(&chosen.digest), &bytes)?;
    if manifest.schema_version != 2 {
        return Err(TransportError::Schema { path: path(), version: manifest.schema_version });
    }
    // What says of itself to be something else may be read differently by others.
    if let Some(media_type) = manifest.media_type.as_deref().filter(|kind| Kind::of(kind) != Kind::Manifest) {
        let media_type = media_type.to_owned();
        return Err(TransportError::MediaType { path: path(), name: blob_name(&chosen.digest), media_type });
    }
    if Kind::of(&manifest.config.media_type) != Kind::Config {
        return Err(wrong_type(files, &manifest.config));
    }
    if manifest.config.size > MAX_JSON {
        let (name, size) = (blob_name(&manifest.config.digest), manifest.config.size);
        return Err(TransportError::TooLarge { path: path(), name, size, limit: MAX_JSON });
    }
    let config = files.read_blob(&manifest.config)?;
    let parsed: ImageConfig = json(files, &blob_name(&manifest.config.digest), &config)?;
    check_layer_count(files, manifest.layers.len(), &parsed)?;
    let layers = manifest.layers.iter().map(|layer| layer_source(files, layer)).collect::<Result<_, _>>()?;
    Ok(DiskSource { manifest_digest: chosen.digest, manifest: bytes, config, names, layers })
}

pub(super) fn check_layer_count(
    files: &dyn Files,
    layers: usize,
    config: &ImageConfig,
) -> Result<(), TransportError> {
    let diff_ids = config.rootfs.diff_ids.len();
    if layers == diff_ids {
        return Ok(());
    }
    Err(TransportError::LayerCount { path: files.path().to_owned(), layers, diff_ids })
}

fn layer_source(files: &dyn Files, layer: &Descriptor) -> Result<LayerSource, TransportError> {
    if Kind::of(&layer.media_type) != Kind::Layer {
        return Err(wrong_type(files, layer));
    }
    let name = blob_name(&layer.digest);
    let found = files.find(&name)?;
    files.check_size(&name, layer.size, found.size)?;
    // The type often says gzip where the layer is not; as other tools do, the first bytes decide.
    Ok(LayerSource {
        digest: Some(layer.digest),
        size: Some(layer.size),
        compression: Compression::Detect,
        open: found.open,
    })
}

fn wrong_type(files: &dyn Files, descriptor: &Descriptor) -> TransportError {
    TransportError::MediaType {
        path: files.path().to_owned(),
        name: blob_name(&descriptor.digest),
        media_type: descriptor.media_type.clone(),
    }
}
