//! From a name to an image in the store.

use std::{path::PathBuf, sync::Arc};

use super::{
    Patience, RegistryError, TlsOptions, blob,
    client::Client,
    downloads::Downloads,
    runtime,
    sources::{Chosen, Sources},
};
use crate::{
    hash::Digest,
    image::{
        FullName, ImageError, NameRecord, Origin, Store, StoredImage,
        credentials::Credentials,
        disk::DiskBuilder,
        registries::{Endpoint, Registries},
        spec::{Descriptor, ImageConfig, MAX_JSON, Manifest, Platform},
        transport::{Engines, TransportError, oci},
    },
    output::Printer,
};

/// How registries are asked.
#[derive(Debug, Clone)]
pub struct Access {
    /// What machine the image is for.
    pub platform: Platform,
    /// How certificates are checked.
    pub tls: TlsOptions,
    /// Who the user is; `None` for what the user's files say.
    pub auth_file: Option<PathBuf>,
    /// How long a registry may take.
    pub patience: Patience,
    /// Other engines of this machine, which may have what no registry has.
    pub engines: Engines,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            platform: Platform::host(),
            tls: TlsOptions::default(),
            auth_file: None,
            patience: Patience::default(),
            engines: Engines::default(),
        }
    }
}

impl Access {
    fn sources(&self, registries: &Registries, name: &FullName) -> Result<Sources, ImageError> {
        let failed = |source| failed(name, source);
        let credentials = Credentials::of_user(self.auth_file.clone());
        let client = |endpoint: Endpoint| {
            let login = credentials.find(&endpoint.registry, &endpoint.repository)?;
            Client::new(endpoint, login, &self.tls, &self.patience).map(Arc::new).map_err(failed)
        };
        let clients = registries.endpoints(name)?.into_iter().map(client).collect::<Result<_, _>>()?;
        Ok(Sources { clients })
    }
}

/// The digest of what the registry has under a name now, where it tells without sending it.
///
/// # Errors
/// Where it cannot be asked, or has no such image.
pub fn upstream(store: &Store, name: &FullName, access: &Access) -> Result<Option<Digest>, ImageError> {
    let failed = |source| failed(name, source);
    let runtime = runtime().map_err(failed)?;
    let sources = access.sources(&store.registries()?, name)?;
    // The registry itself: mirrors may lag behind.
    let Some(client) = sources.clients.last() else { return Ok(None) };
    runtime.block_on(client.digest(name.reference())).map_err(failed)
}

/// Fetches what is missing of an image, makes its disk, and gives it the name.
///
/// # Errors
/// Where no place has it, what comes is not what it should be, or it cannot be stored. What was
/// fetched until then stays for the next attempt.
pub fn pull(
    store: &Store,
    name: &FullName,
    access: &Access,
    printer: &Printer,
    builder: &dyn DiskBuilder,
) -> Result<StoredImage, ImageError> {
    let runtime = runtime().map_err(|source| failed(name, source))?;
    let sources = access.sources(&store.registries()?, name)?;
    let chosen = sources.choose(runtime.handle(), name, &access.platform);
    let chosen = chosen.map_err(|error| pull_error(name, error))?;
    let pull = Pull { store, name, access, printer, builder, runtime: &runtime, sources: &sources };
    let image = pull.image(&chosen);
    // Whatever is still coming is of no use any more.
    runtime.shutdown_background();
    let image = image?;
    let record =
        NameRecord { image: image.digest, origin: Origin::Registry, upstream: Some(chosen.upstream) };
    store.tag(name, record)?;
    Ok(image)
}

/// Fetches what is missing of an image's blobs, and nothing else: its name and disk are left as they
/// are.
///
/// # Errors
/// As of [`pull`].
pub fn fetch_blobs(
    store: &Store,
    name: &FullName,
    access: &Access,
    printer: &Printer,
) -> Result<(), ImageError> {
    let runtime = runtime().map_err(|source| failed(name, source))?;
    let sources = access.sources(&store.registries()?, name)?;
    let chosen = sources.choose(runtime.handle(), name, &access.platform);
    let chosen = chosen.map_err(|error| pull_error(name, error))?;
    let manifest = manifest(&sources, &chosen, name)?;
    let blobs = Arc::new(store.add_blobs()?);
    blobs.add(&chosen.manifest)?.commit()?;
    let wanted: Vec<_> = manifest.layers.iter().chain([&manifest.config]).cloned().collect();
    store.check_space_for_blobs(&wanted)?;
    let downloads = Arc::new(Downloads::new(&name.to_string(), blobs, &wanted));
    downloads.start(runtime.handle(), &sources.from(chosen.source).into(), &wanted, printer);
    let failure = downloads.wait();
    runtime.shutdown_background();
    failure.map_or(Ok(()), Err)
}

/// What all steps of a pull need.
struct Pull<'a> {
    store: &'a Store,
    name: &'a FullName,
    access: &'a Access,
    printer: &'a Printer,
    builder: &'a dyn DiskBuilder,
    runtime: &'a tokio::runtime::Runtime,
    sources: &'a Sources,
}

impl Pull<'_> {
    fn image(&self, chosen: &Chosen) -> Result<StoredImage, ImageError> {
        if let Some(image) = self.store.ready(&chosen.descriptor.digest)? {
            return self.for_platform(image);
        }
        // A second time only where blobs that had been in the store were damaged, and are gone now.
        if let Some(image) = self.attempt(chosen)? {
            return Ok(image);
        }
        let damaged = || ImageError::Corrupt { path: self.name.to_string().into() };
        self.attempt(chosen)?.ok_or_else(damaged)
    }

    /// `None` where stored blobs were damaged, and are gone now.
    fn attempt(&self, chosen: &Chosen) -> Result<Option<StoredImage>, ImageError> {
        let name = self.name.to_string();
        let manifest = manifest(self.sources, chosen, self.name)?;
        let blobs = Arc::new(self.store.add_blobs()?);
        blobs.add(&chosen.manifest)?.commit()?;
        let clients: Arc<[_]> = self.sources.from(chosen.source).into();
        self.configuration(&manifest, &clients, &blobs)?;

        let layers: Vec<_> = manifest.layers.clone();
        let downloads = Arc::new(Downloads::new(&name, blobs, &with_json(chosen, &manifest)));
        downloads.already([chosen.descriptor.digest, manifest.config.digest]);
        let source = oci::image(&downloads, &chosen.descriptor, vec![name.clone()])?;
        self.store.check_space_for_blobs(&layers)?;
        downloads.start(self.runtime.handle(), &clients, &layers, self.printer);

        let built = self.store.ensure_disk(source, self.printer, self.builder);
        let error = match (built, downloads.failure()) {
            (Ok(image), None) => match downloads.wait() {
                None => return Ok(Some(image)),
                // Another process made the disk, from blobs that were here when it did.
                Some(error) => {
                    tracing::warn!(%error, "the image is complete, its layers are not");
                    return Ok(Some(image));
                }
            },
            (Ok(image), Some(_)) => return Ok(Some(image)),
            (Err(_), Some(error)) => return Err(error),
            (Err(error), None) => error,
        };
        match &error {
            ImageError::Disk { source, .. } if source.is_bad_layer() && downloads.remove_damaged()? > 0 => {
                Ok(None)
            }
            _ => Err(error),
        }
    }

    /// Fetches the configuration, and looks whether the image is for the machine it is wanted for.
    fn configuration(
        &self,
        manifest: &Manifest,
        clients: &[Arc<Client>],
        blobs: &Arc<crate::image::store::BlobAdder>,
    ) -> Result<(), ImageError> {
        let (config, name) = (&manifest.config, self.name.to_string());
        if config.size > MAX_JSON {
            let (path, size) = (name.into(), config.size);
            let name = config.digest.to_string();
            return Err(TransportError::TooLarge { path, name, size, limit: MAX_JSON }.into());
        }
        self.runtime.block_on(blob::fetch(&name, clients, blobs.clone(), config, None))?;
        let path = blobs.path_of(&config.digest);
        let bytes = std::fs::read(&path).map_err(|source| ImageError::Read { path, source })?;
        if Digest::of(&bytes) != config.digest {
            // Damaged since it was stored; fetched again, or told for what it is.
            let path = blobs.path_of(&config.digest);
            std::fs::remove_file(&path).map_err(|source| ImageError::Remove { path, source })?;
            self.runtime.block_on(blob::fetch(&name, clients, blobs.clone(), config, None))?;
            return Ok(());
        }
        // What is no configuration is refused where all of it is read.
        if let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes) {
            self.check_platform(&config)?;
        }
        Ok(())
    }

    fn for_platform(&self, image: StoredImage) -> Result<StoredImage, ImageError> {
        self.check_platform(&image.config)?;
        Ok(image)
    }

    fn check_platform(&self, config: &ImageConfig) -> Result<(), ImageError> {
        let (found, wanted) = (&config.platform, &self.access.platform);
        if found.architecture.is_empty() || found.rank_for(wanted).is_some() {
            return Ok(());
        }
        let (name, found, wanted) = (self.name.to_string(), found.to_string(), wanted.to_string());
        Err(ImageError::Platform { name, found, wanted })
    }
}

fn manifest(sources: &Sources, chosen: &Chosen, name: &FullName) -> Result<Manifest, ImageError> {
    serde_json::from_slice(&chosen.manifest).map_err(|source| {
        let registry = sources.clients[chosen.source].registry();
        failed(name, RegistryError::Manifest { registry, name: name.to_string(), source })
    })
}

/// All blobs of an image.
fn with_json(chosen: &Chosen, manifest: &Manifest) -> Vec<Descriptor> {
    let mut all = manifest.layers.clone();
    all.extend([chosen.descriptor.clone(), manifest.config.clone()]);
    all
}

fn pull_error(name: &FullName, error: TransportError) -> ImageError {
    match error {
        TransportError::Registry(source) => failed(name, source),
        error => error.into(),
    }
}

fn failed(name: &FullName, source: RegistryError) -> ImageError {
    ImageError::Pull { name: name.to_string(), source: Box::new(source) }
}
