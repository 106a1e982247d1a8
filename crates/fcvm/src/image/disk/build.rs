//! Building a disk, step by step.

use std::{path::Path, sync::mpsc, thread};

use jiff::Timestamp as Instant;
use serde::Deserialize;

use super::{
    DiskError,
    pipeline::{self, Received},
    room::{RESERVE, Room},
    store::Store,
};
use crate::{
    hash::Digest,
    image::{
        layer::{LayerError, apply_layer},
        model::{DiskSource, DiskStats},
    },
    storage::{
        AtomicFile,
        ext4::{Ext4Error, Ext4Writer, Options, SizePolicy, Timestamp},
    },
};

/// What is needed of an image's configuration.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
    created: Option<String>,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// What is needed of a manifest.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: Digest,
}

/// Makes the disk of an image at `dest`, replacing what is there. The same image gives the same
/// bytes.
///
/// # Errors
/// Where anything is not what a digest says, a layer cannot be read or applied, or there is no
/// space. Then `dest` is as it was.
pub fn build(dest: &Path, image: &DiskSource) -> Result<DiskStats, DiskError> {
    build_leaving(RESERVE, dest, image)
}

/// [`build`], with as much left free on the file system.
pub(super) fn build_leaving(reserve: u64, dest: &Path, image: &DiskSource) -> Result<DiskStats, DiskError> {
    let config = verify(image)?;
    let diff_ids = &config.rootfs.diff_ids;
    let created = config.created.and_then(|text| text.parse().ok()).unwrap_or(Instant::UNIX_EPOCH);
    let store = Store::new(image, diff_ids, created);

    let failed = |source| DiskError::Write { path: dest.to_owned(), source };
    let file = AtomicFile::create(dest).map_err(failed)?;
    let mut room = Room::new(dest.parent().unwrap_or(Path::new(".")), reserve);
    // They hardly ever come to less than they take compressed.
    room.require(image.layers.iter().filter_map(|layer| layer.size).fold(0, u64::saturating_add))?;

    let options = Options {
        label: "fcvm-image".into(),
        uuid_seed: image.manifest_digest.to_string().into_bytes(),
        created: Timestamp { seconds: created.as_second(), nanoseconds: 0 },
    };
    let full = Room::new(dest.parent().unwrap_or(Path::new(".")), reserve);
    let file_system = |error| if is_full(&error) { full.exhausted() } else { DiskError::FileSystem(error) };
    let image_file = file.file().try_clone().map_err(failed)?;
    let mut writer = Ext4Writer::create(image_file, options).map_err(file_system)?;
    writer.enter(store.content().as_bytes()).map_err(file_system)?;
    apply_layers(&mut writer, image, diff_ids, &mut room)?;
    let content = writer.totals();
    writer.leave();
    store.write(&mut writer, content).map_err(file_system)?;
    let stats = writer.finish(SizePolicy::Fit).map_err(file_system)?;
    file.commit().map_err(failed)?;
    Ok(DiskStats {
        bytes: stats.bytes,
        allocated: stats.allocated,
        files: content.files,
        unpacked: content.bytes,
    })
}

/// Checks all that can be checked before the layers are read.
fn verify(image: &DiskSource) -> Result<Config, DiskError> {
    let found = Digest::of(&image.manifest);
    if found != image.manifest_digest {
        return Err(DiskError::ManifestDigest { expected: image.manifest_digest, found });
    }
    let manifest: Manifest = serde_json::from_slice(&image.manifest).map_err(DiskError::Manifest)?;
    let found = Digest::of(&image.config);
    if let Some(Descriptor { digest: expected }) = manifest.config
        && expected != found
    {
        return Err(DiskError::ConfigDigest { expected, found });
    }
    let config: Config = serde_json::from_slice(&image.config).map_err(DiskError::Config)?;
    let (layers, expected) = (image.layers.len(), config.rootfs.diff_ids.len());
    if layers != expected {
        return Err(DiskError::LayerCount { layers, expected });
    }
    Ok(config)
}

fn apply_layers(
    writer: &mut Ext4Writer,
    image: &DiskSource,
    diff_ids: &[Digest],
    room: &mut Room,
) -> Result<(), DiskError> {
    thread::scope(|scope| {
        let (sender, receiver) = mpsc::sync_channel(pipeline::CHUNKS);
        scope.spawn(move || pipeline::send(&image.layers, diff_ids, &sender));
        // Dropped on an error, which ends the other thread.
        let mut received = Received::new(receiver, room);
        for layer in 1..=image.layers.len() {
            let applied = apply_layer(writer, &mut received);
            if let Err(LayerError::Apply { source, .. }) = &applied
                && is_full(source)
            {
                return Err(received.exhausted());
            }
            // That the layer is the wrong one says more than what is wrong with it.
            received.finish_layer()?;
            applied.map_err(|source| DiskError::Layer { layer, source })?;
        }
        Ok(())
    })
}

fn is_full(error: &Ext4Error) -> bool {
    matches!(error, Ext4Error::NoSpace { .. })
}
