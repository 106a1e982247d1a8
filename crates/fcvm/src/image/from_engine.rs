//! Images of other engines on this machine, into the store.
//!
//! An image is saved and its disk made where the store does not have it: what it is, is told
//! by its id. A name that comes from an engine keeps the id with it, and the engine is asked
//! at each run whether the name still means that image.

use super::{
    FullName, IdPrefix, ImageError, ImageName, NameRecord, Origin, Store, StoredImage,
    disk::DiskBuilder,
    model::DiskSource,
    reference::EngineName,
    resolve::check_platform,
    spec::{ImageConfig, Platform},
    transport::{EngineError, Engines, TransportError, docker_daemon, engine::EngineImage, podman},
};
use crate::output::Printer;

/// What it takes to get an image from an engine.
pub(super) struct FromEngine<'a> {
    pub(super) store: &'a Store,
    pub(super) engines: &'a Engines,
    pub(super) platform: &'a Platform,
    pub(super) printer: &'a Printer,
    pub(super) builder: &'a dyn DiskBuilder,
}

impl FromEngine<'_> {
    /// The image that Podman has under a name; `None` where it has none, or there is no Podman.
    pub(super) fn podman_name(&self, name: &FullName) -> Result<Option<StoredImage>, ImageError> {
        let text = name.to_string();
        match podman::find(self.engines, &text) {
            Ok(Some(image)) => self.podman(&text, &image, Some(name)).map(Some),
            Ok(None) | Err(EngineError::NoPodman { .. }) => Ok(None),
            // Asked for nothing that is Podman's alone.
            Err(error) => {
                let error = anyhow::Error::from(error);
                self.printer.warn(format_args!("Podman was not asked for `{name}`: {error:#}"));
                Ok(None)
            }
        }
    }

    /// `containers-storage:NAME`
    pub(super) fn containers_storage(&self, name: &EngineName) -> Result<StoredImage, ImageError> {
        let text = match name {
            EngineName::Name(name) => name.to_string(),
            EngineName::Id(id) => id.digits().to_owned(),
        };
        let missing = || EngineError::NoImage { engine: "Podman", name: text.clone() };
        let image = podman::find(self.engines, &text).map_err(engine)?.ok_or_else(|| engine(missing()))?;
        let named = named(name, &image, |name| name.at("localhost"));
        self.podman(&format!("containers-storage:{name}"), &image, named.as_ref())
    }

    /// `docker-daemon:NAME`
    pub(super) fn docker_daemon(&self, name: &EngineName) -> Result<StoredImage, ImageError> {
        let text = name.to_string();
        let image = docker_daemon::find(self.engines, &text).map_err(engine)?;
        let named = named(name, &image, ImageName::of_docker);
        let save = || docker_daemon::save(self.engines, &image, self.store.cache());
        self.stored(&format!("docker-daemon:{text}"), &image, named.as_ref(), Origin::Docker, save)
    }

    fn podman(
        &self,
        said: &str,
        image: &EngineImage,
        name: Option<&FullName>,
    ) -> Result<StoredImage, ImageError> {
        let save = || podman::save(self.engines, image, self.store.cache());
        self.stored(said, image, name, Origin::Podman, save)
    }

    /// The image as the store has it, or as it comes; under the name that it has there.
    fn stored(
        &self,
        said: &str,
        image: &EngineImage,
        name: Option<&FullName>,
        origin: Origin,
        save: impl FnOnce() -> Result<DiskSource, TransportError>,
    ) -> Result<StoredImage, ImageError> {
        let known = name.map(|name| self.store.record_of(name)).transpose()?.flatten();
        let stored = match self.in_store(image, known.as_ref())? {
            Some(stored) => {
                check_platform(&said, &stored.config, self.platform)?;
                stored
            }
            None => {
                tracing::debug!(image = said, id = %image.id, "saved by the engine");
                let source = save()?;
                // Before the disk is made, which takes much longer.
                if let Ok(config) = serde_json::from_slice::<ImageConfig>(&source.config) {
                    check_platform(&said, &config, self.platform)?;
                }
                self.store.ensure_disk(source, self.printer, self.builder)?
            }
        };
        // A name that was given here, or is a registry's, stays with what it means.
        if let Some(name) = name
            && known.is_none_or(|known| known.origin == origin)
        {
            let record = NameRecord { image: stored.digest, origin, upstream: Some(image.id) };
            self.store.tag(name, record)?;
        }
        Ok(stored)
    }

    fn in_store(
        &self,
        image: &EngineImage,
        known: Option<&NameRecord>,
    ) -> Result<Option<StoredImage>, ImageError> {
        // Not always by its id: that of an engine may be another digest than that of the configuration.
        let by_name = known.filter(|known| known.upstream == Some(image.id)).map(|known| known.image);
        let digest = match by_name {
            Some(digest) => Some(digest),
            None => self.store.find_id(&IdPrefix::of(&image.id))?,
        };
        match digest.map(|digest| self.store.get(&digest, self.printer)) {
            Some(Ok(stored)) => Ok(Some(stored)),
            // The engine has it still.
            Some(Err(ImageError::Corrupt { .. } | ImageError::Unknown { .. })) | None => Ok(None),
            Some(Err(error)) => Err(error),
        }
    }
}

/// Which of an image's names was meant; none where it was an id.
fn named(
    written: &EngineName,
    image: &EngineImage,
    as_engine_does: impl Fn(&ImageName) -> FullName,
) -> Option<FullName> {
    let EngineName::Name(written) = written else { return None };
    if written.digest().is_some() {
        return None;
    }
    let has = |name: &FullName| {
        let names = image.names.iter().filter_map(|text| text.parse::<ImageName>().ok());
        names.map(|name| as_engine_does(&name)).any(|other| other == *name)
    };
    // What a name without registry means is up to the engine's configuration: known where one
    // of its names is the written one.
    let local = as_engine_does(written);
    if has(&local) {
        return Some(local);
    }
    let ends = format!("/{}", written.at("localhost").repository());
    let mut names = image.names.iter().filter_map(|text| text.parse::<FullName>().ok());
    names.find(|name| {
        name.reference() == local.reference() && format!("/{}", name.repository()).ends_with(&ends)
    })
}

fn engine(error: EngineError) -> ImageError {
    TransportError::from(error).into()
}
