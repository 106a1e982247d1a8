//! The places that may have an image, and what they have.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use tokio::runtime::Handle;

use super::{
    RegistryError,
    client::{Client, Fetched},
};
use crate::{
    hash::Digest,
    image::{
        FullName, Reference,
        spec::{Descriptor, Index, Kind, MANIFESTS, OCI_INDEX, OCI_MANIFEST, Platform},
        transport::{
            TransportError,
            files::{Files, Found},
            oci,
        },
    },
};

/// The places that may have an image, best first.
pub(super) struct Sources {
    pub(super) clients: Vec<Arc<Client>>,
}

/// The manifest of an image, and where it was found.
pub(super) struct Chosen {
    /// The place, among the sources.
    pub(super) source: usize,
    /// Of what the name means there: the manifest or an index.
    pub(super) upstream: Digest,
    pub(super) manifest: Vec<u8>,
    pub(super) descriptor: Descriptor,
}

/// What tells manifests from indexes.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
}

impl Sources {
    /// Asks one place after the other.
    ///
    /// # Errors
    /// The error of the last place, which is the registry itself, where none has it.
    pub(super) fn choose(
        &self,
        handle: &Handle,
        name: &FullName,
        wanted: &Platform,
    ) -> Result<Chosen, TransportError> {
        let mut outcome = Err(TransportError::Empty { path: name.to_string().into() });
        for (number, client) in self.clients.iter().enumerate() {
            outcome = choose(handle, client, name, wanted).map(|(upstream, manifest, descriptor)| Chosen {
                source: number,
                upstream,
                manifest,
                descriptor,
            });
            match &outcome {
                Ok(_) => break,
                Err(error) => tracing::debug!(%error, registry = client.registry(), "not from there"),
            }
        }
        outcome
    }

    /// The place where the manifest was found, then the others.
    pub(super) fn from(&self, first: usize) -> Vec<Arc<Client>> {
        let mut clients = self.clients.clone();
        clients.rotate_left(first);
        clients
    }
}

fn choose(
    handle: &Handle,
    client: &Client,
    name: &FullName,
    wanted: &Platform,
) -> Result<(Digest, Vec<u8>, Descriptor), TransportError> {
    let fetched = handle.block_on(client.manifest(name.reference()))?;
    let upstream = fetched.digest;
    match kind(client, name, &fetched)? {
        Kind::Index => {
            let files = Manifests { handle, client, name: name.to_string().into() };
            let index: Index = serde_json::from_slice(&fetched.bytes).map_err(|source| {
                RegistryError::Manifest { registry: client.registry(), name: name.to_string(), source }
            })?;
            let descriptor = oci::by_platform(&files, index.manifests, wanted)?;
            let manifest = files.read_blob(&descriptor)?;
            Ok((upstream, manifest, descriptor))
        }
        _ => {
            let descriptor = Descriptor {
                media_type: OCI_MANIFEST.into(),
                digest: upstream,
                size: fetched.bytes.len() as u64,
                platform: None,
                annotations: Default::default(),
            };
            Ok((upstream, fetched.bytes, descriptor))
        }
    }
}

/// Whether it is an index or a manifest: as it says itself, else the registry's header, else what
/// is in it. What could be both would be read differently by others, and is neither.
fn kind(client: &Client, name: &FullName, fetched: &Fetched) -> Result<Kind, RegistryError> {
    let (registry, name) = (client.registry(), name.to_string());
    let outline: Outline = serde_json::from_slice(&fetched.bytes).map_err(|source| {
        RegistryError::Manifest { registry: registry.clone(), name: name.clone(), source }
    })?;
    let known = |kind: &String| MANIFESTS.contains(&kind.as_str());
    let said = outline.media_type.clone().or_else(|| fetched.media_type.clone().filter(known));
    let media_type = said
        .unwrap_or_else(|| if outline.manifests.is_some() { OCI_INDEX.into() } else { OCI_MANIFEST.into() });
    let kind = Kind::of(&media_type);
    let ambiguous = outline.manifests.is_some() && outline.layers.is_some();
    if !matches!(kind, Kind::Index | Kind::Manifest) || ambiguous {
        return Err(RegistryError::MediaType { registry, name, media_type });
    }
    Ok(kind)
}

/// Manifests of a repository as files, for who reads indexes.
struct Manifests<'a> {
    handle: &'a Handle,
    client: &'a Client,
    name: PathBuf,
}

impl Files for Manifests<'_> {
    fn path(&self) -> &Path {
        &self.name
    }

    fn find(&self, name: &str) -> Result<Found, TransportError> {
        Err(TransportError::Missing { path: self.name.clone(), name: name.to_owned() })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, TransportError> {
        let hex = name.rsplit('/').next().unwrap_or_default();
        let digest = format!("sha256:{hex}")
            .parse::<Digest>()
            .map_err(|_| TransportError::Missing { path: self.name.clone(), name: name.to_owned() })?;
        Ok(self.handle.block_on(self.client.manifest(&Reference::Digest(digest)))?.bytes)
    }
}
