//! Loading images from archives and layouts into the store, with their layers.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::{
    FullName, ImageError, NameRecord, Store,
    disk::DiskBuilder,
    model::{DiskSource, OpenLayer},
    store::{BlobAdder, PendingBlob, StoredImage},
    transport::{self, TransportError},
};
use crate::output::Printer;

/// Loads all images of an archive or layout: an OCI archive, a docker archive or a directory with
/// an OCI layout, told from what is in it.
///
/// # Errors
/// Where it cannot be read, is damaged, has no image for this machine, or there is no space. What
/// was loaded before stays.
pub fn load(
    store: &Store,
    path: &Path,
    printer: &Printer,
    builder: &dyn DiskBuilder,
) -> Result<Vec<(StoredImage, Vec<FullName>)>, ImageError> {
    std::fs::metadata(path).map_err(|source| ImageError::Read { path: path.to_owned(), source })?;
    let mut loaded = Vec::new();
    for source in transport::all(path, store.cache())? {
        loaded.push(load_one(store, path, source, printer, builder)?);
    }
    Ok(loaded)
}

fn load_one(
    store: &Store,
    path: &Path,
    mut source: DiskSource,
    printer: &Printer,
    builder: &dyn DiskBuilder,
) -> Result<(StoredImage, Vec<FullName>), ImageError> {
    let names: Vec<FullName> = source.names.iter().filter_map(|name| name.parse().ok()).collect();
    let adder = store.add_blobs()?;
    let mut blobs = Vec::new();
    for layer in &mut source.layers {
        let open = std::mem::replace(&mut layer.open, unopened());
        let blob = copy(&adder, &open, path)?;
        if let Some(expected) = layer.digest.filter(|expected| *expected != blob.digest) {
            let name = format!("blobs/sha256/{}", expected.hex());
            let (path, found) = (path.to_owned(), blob.digest);
            return Err(TransportError::Digest { path, name, expected, found }.into());
        }
        let stored = blob.path().to_owned();
        layer.open = Box::new(move || Ok(Box::new(File::open(&stored)?)));
        blobs.push(blob);
    }
    blobs.push(adder.add(&source.config)?);
    blobs.push(adder.add(&source.manifest)?);
    // Before the blobs get their names: it is what tells an image from anything else.
    let stored = store.ensure_disk(source, printer, builder)?;
    for blob in blobs {
        blob.commit()?;
    }
    for name in &names {
        store.tag(name, NameRecord::local(stored.digest))?;
    }
    Ok((stored, names))
}

fn unopened() -> OpenLayer {
    Box::new(|| Err(io::ErrorKind::NotFound.into()))
}

/// Copies a layer into the store; which side failed decides what the error says.
fn copy(adder: &BlobAdder, open: &OpenLayer, path: &Path) -> Result<PendingBlob, ImageError> {
    let read = |source| ImageError::Read { path: path.to_owned(), source };
    let mut blob = adder.create()?;
    let target: PathBuf = blob.path().to_owned();
    let mut reader = open().map_err(read)?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(blob.finish()),
            Ok(count) => blob
                .write_all(&buffer[..count])
                .map_err(|source| ImageError::Write { path: target.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(read(error)),
        }
    }
}
