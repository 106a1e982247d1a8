//! Fetching one blob, whatever happens on the way.

use std::sync::Arc;

use super::{
    RegistryError,
    client::{Body, Client},
    patience::Attempts,
};
use crate::{
    image::{
        ImageError,
        spec::Descriptor,
        store::{BlobAdder, PartialBlob},
    },
    output::{Printer, Progress, Unit},
};

/// Why a blob did not come.
enum Failure {
    /// Of the registry.
    Registry(RegistryError),
    /// Of our disk.
    Store(ImageError),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// It was in the store already.
    NotNeeded,
    /// It was fetched and verified.
    Fetched,
}

/// Puts a blob into the store, from the first of the places that gives it.
pub(super) async fn fetch(
    name: &str,
    clients: &[Arc<Client>],
    blobs: Arc<BlobAdder>,
    blob: &Descriptor,
    printer: Option<&Printer>,
) -> Result<Came, ImageError> {
    let digest = blob.digest;
    // Another process may have it locked for a long time.
    let opened = tokio::task::spawn_blocking(move || blobs.resume(&digest)).await;
    let opened = opened.map_err(|error| ImageError::Read { path: name.into(), source: error.into() })?;
    let Some(mut partial) = opened? else { return Ok(Came::NotNeeded) };
    let progress = printer.map(|printer| {
        let progress = printer.progress(format!("layer {}", digest.short()));
        progress.set_unit(Unit::Bytes(blob.size));
        progress.add(partial.size());
        progress
    });
    let mut outcome = Ok(());
    for client in clients {
        outcome = from(client, blob, &mut partial, progress.as_ref()).await;
        match &outcome {
            Err(Failure::Registry(error)) => {
                tracing::debug!(%error, %digest, registry = client.registry(), "not from there");
            }
            Err(Failure::Store(_)) | Ok(()) => break,
        }
    }
    match outcome {
        Ok(()) => partial.commit()?,
        Err(Failure::Registry(source)) => {
            return Err(ImageError::Pull { name: name.to_owned(), source: Box::new(source) });
        }
        Err(Failure::Store(error)) => return Err(error),
    }
    if let Some(progress) = progress {
        progress.done(&bytesize::ByteSize(blob.size).display().si().to_string());
    }
    Ok(Came::Fetched)
}

/// Fetches what is missing of a blob from one place, and verifies all of it.
async fn from(
    client: &Client,
    blob: &Descriptor,
    partial: &mut PartialBlob,
    progress: Option<&Progress>,
) -> Result<(), Failure> {
    let mut attempts = Attempts::new(&client.patience);
    // What was begun may be from another time and place: where it is wrong, all is fetched anew, once.
    let mut resumed = partial.size() > 0;
    loop {
        let before = partial.size();
        let failure = if before < blob.size {
            receive(client, blob, partial, progress).await.err()
        } else {
            verify(client, blob, partial).err().map(Failure::from)
        };
        match failure {
            None if partial.size() == blob.size && before == blob.size => return Ok(()),
            None => {}
            Some(Failure::Registry(error @ (RegistryError::Digest { .. } | RegistryError::Size { .. }))) => {
                partial.reset().map_err(Failure::Store)?;
                if !std::mem::take(&mut resumed) {
                    return Err(error.into());
                }
            }
            Some(Failure::Registry(error)) => {
                if partial.size() > before {
                    attempts.progressed();
                }
                resumed |= partial.size() > 0;
                attempts.after(error).await?;
            }
            Some(failure) => return Err(failure),
        }
    }
}

fn verify(client: &Client, blob: &Descriptor, partial: &PartialBlob) -> Result<(), RegistryError> {
    let (registry, expected) = (client.registry(), blob.digest);
    if partial.size() != blob.size {
        let (found, expected) = (partial.size(), blob.size);
        return Err(RegistryError::Size { registry, digest: blob.digest, found, expected });
    }
    match partial.digest() {
        found if found == expected => Ok(()),
        found => Err(RegistryError::Digest { registry, found, expected }),
    }
}

/// Receives as much as comes of one answer.
async fn receive(
    client: &Client,
    blob: &Descriptor,
    partial: &mut PartialBlob,
    progress: Option<&Progress>,
) -> Result<(), Failure> {
    let Body { mut response, start } = client.blob(&blob.digest, partial.size()).await?;
    if start != partial.size() {
        // It does not begin where it was asked to: all of it comes, or something else.
        partial.reset().map_err(Failure::Store)?;
        if start != 0 {
            let (found, expected) = (start, 0);
            return Err(cut_off(client, blob, found, expected).into());
        }
    }
    while let Some(bytes) = response.chunk().await.map_err(|error| client.failed(error))? {
        let found = partial.size() + bytes.len() as u64;
        if found > blob.size {
            let (registry, digest, expected) = (client.registry(), blob.digest, blob.size);
            return Err(RegistryError::Size { registry, digest, found, expected }.into());
        }
        partial.write(&bytes).map_err(Failure::Store)?;
        if let Some(progress) = progress {
            progress.add(bytes.len() as u64);
        }
    }
    if partial.size() < blob.size {
        return Err(cut_off(client, blob, partial.size(), blob.size).into());
    }
    Ok(())
}

fn cut_off(client: &Client, blob: &Descriptor, found: u64, expected: u64) -> RegistryError {
    RegistryError::CutOff { registry: client.registry(), digest: blob.digest, found, expected }
}
