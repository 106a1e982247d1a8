//! From what the user wrote to an image with a disk.

use std::fmt;

use super::{
    FullName, ImageError, ImageName, ImageRef, NameRecord, Origin, Store, StoredImage,
    disk::DiskBuilder,
    from_engine::FromEngine,
    model::DiskSource,
    registry::{self, Access},
    spec::{ImageConfig, Platform},
    transport,
};
use crate::{hash::Digest, output::Printer};

/// When an image is fetched though one is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum PullPolicy {
    /// Fetch it anew each time.
    Always,
    /// Fetch it where it is not stored.
    #[default]
    Missing,
    /// Fetch it where the registry's is newer.
    Newer,
    /// Use what is stored or fail.
    Never,
}

/// The image the user named, its disk made where it was not.
///
/// Archives and layouts are read where they lie, and engines are asked, whatever the policy is. A name
/// is looked for in the store, as a local one in this user's Podman, then in the registries that may
/// have it. What came from Podman is compared with what Podman has now.
///
/// # Errors
/// Where there is no such image, it cannot be read or stored, or is not for this machine.
pub fn resolve(
    image: &ImageRef,
    policy: PullPolicy,
    store: &Store,
    access: &Access,
    printer: &Printer,
    builder: &dyn DiskBuilder,
) -> Result<StoredImage, ImageError> {
    let cache = store.cache();
    match image {
        ImageRef::OciLayout { dir, tag } => {
            from_source(store, image, transport::oci_layout(dir, tag.as_deref())?, printer, builder)
        }
        ImageRef::OciArchive { file, tag } => {
            from_source(store, image, transport::oci_archive(file, tag.as_deref(), cache)?, printer, builder)
        }
        ImageRef::DockerArchive { file, reference } => {
            let source = transport::docker_archive(file, reference.as_ref(), cache)?;
            from_source(store, image, source, printer, builder)
        }
        ImageRef::ContainersStorage(name) => engine(store, access, printer, builder).containers_storage(name),
        ImageRef::DockerDaemon(name) => engine(store, access, printer, builder).docker_daemon(name),
        ImageRef::Name(name) => Named { name, store, access, printer, builder }.resolve(policy),
        ImageRef::Id(id) => {
            let digest = store.find_id(id)?.ok_or_else(|| ImageError::Unknown { name: image.to_string() })?;
            let stored = store.get(&digest, printer)?;
            check_platform(image, &stored.config, &access.platform)?;
            Ok(stored)
        }
    }
}

fn engine<'a>(
    store: &'a Store,
    access: &'a Access,
    printer: &'a Printer,
    builder: &'a dyn DiskBuilder,
) -> FromEngine<'a> {
    FromEngine { store, engines: &access.engines, platform: &access.platform, printer, builder }
}

/// A name to be resolved.
struct Named<'a> {
    name: &'a ImageName,
    store: &'a Store,
    access: &'a Access,
    printer: &'a Printer,
    builder: &'a dyn DiskBuilder,
}

impl Named<'_> {
    fn resolve(&self, policy: PullPolicy) -> Result<StoredImage, ImageError> {
        let found = self.store.find_name(self.name)?;
        match (policy, found) {
            (PullPolicy::Never, Some((_, record))) => self.stored(&record.image),
            (_, Some((name, record))) if record.origin == Origin::Podman => {
                match self.podmans(&name)? {
                    Some(stored) => Ok(stored),
                    // Podman has it no more; we do.
                    None => self.stored(&record.image),
                }
            }
            (PullPolicy::Missing, Some((name, record))) => match self.stored(&record.image) {
                // What was pulled for another machine, or was damaged since, is not what is wanted.
                Err(ImageError::Platform { .. } | ImageError::Corrupt { .. })
                    if record.origin == Origin::Registry =>
                {
                    self.pull(&name)
                }
                stored => stored,
            },
            (PullPolicy::Newer, Some((name, record))) if record.origin == Origin::Registry => {
                self.newer(&name, &record)
            }
            (PullPolicy::Newer, Some((_, record))) => self.stored(&record.image),
            (PullPolicy::Always, Some((name, _))) if !name.is_local() => self.pull(&name),
            (PullPolicy::Always, Some(_)) => self.pull_first(),
            (_, None) => {
                if policy != PullPolicy::Never
                    && let Some(stored) = self.local_of_podman()?
                {
                    return Ok(stored);
                }
                let id = self.name.as_id().map(|id| self.store.find_id(&id)).transpose()?.flatten();
                match id {
                    Some(digest) => self.stored(&digest),
                    None if policy == PullPolicy::Never => {
                        Err(ImageError::Unknown { name: self.name.to_string() })
                    }
                    None => self.pull_first(),
                }
            }
        }
    }

    /// What Podman has under a name that is of this machine alone.
    fn local_of_podman(&self) -> Result<Option<StoredImage>, ImageError> {
        let candidates = self.store.candidates(self.name)?;
        match candidates.iter().find(|name| name.is_local()) {
            Some(name) => self.podmans(name),
            None => Ok(None),
        }
    }

    fn podmans(&self, name: &FullName) -> Result<Option<StoredImage>, ImageError> {
        engine(self.store, self.access, self.printer, self.builder).podman_name(name)
    }

    fn stored(&self, digest: &Digest) -> Result<StoredImage, ImageError> {
        let stored = self.store.get(digest, self.printer)?;
        check_platform(&self.name, &stored.config, &self.access.platform)?;
        Ok(stored)
    }

    fn pull(&self, name: &FullName) -> Result<StoredImage, ImageError> {
        registry::pull(self.store, name, self.access, self.printer, self.builder)
    }

    /// The registry's image where it is another one; what is stored where the registry cannot be asked.
    fn newer(&self, name: &FullName, record: &NameRecord) -> Result<StoredImage, ImageError> {
        let stored = self.stored(&record.image);
        let asked = registry::upstream(self.store, name, self.access);
        let asked = match (&stored, asked) {
            (Ok(_), Ok(Some(digest))) if record.upstream == Some(digest) => return stored,
            (_, Ok(_)) => self.pull(name),
            (_, Err(error)) => Err(error),
        };
        match (stored, asked) {
            (Ok(stored), Err(error)) => {
                let error = anyhow::Error::from(error);
                self.printer.warn(format_args!("using the stored image `{name}`: {error:#}"));
                Ok(stored)
            }
            (_, asked) => asked,
        }
    }

    /// Asks the registries that the name may be of, one after the other.
    fn pull_first(&self) -> Result<StoredImage, ImageError> {
        let mut candidates = self.store.candidates(self.name)?;
        candidates.retain(|name| !name.is_local());
        let mut absences = Vec::new();
        for name in &candidates {
            match self.pull(name) {
                Err(ImageError::Pull { source, .. }) if source.is_absence() => absences.push(source),
                outcome => return outcome,
            }
        }
        let name = self.name.to_string();
        let asked: Vec<_> = candidates.iter().map(ToString::to_string).collect();
        match (absences.pop(), asked.as_slice()) {
            (None, _) if self.store.find_name(self.name)?.is_some() => Err(ImageError::LocalOnly { name }),
            (None, _) => Err(ImageError::Unknown { name }),
            (Some(source), [name]) => Err(ImageError::Pull { name: name.clone(), source }),
            (Some(source), _) => Err(ImageError::NoRegistry { name, source, asked }),
        }
    }
}

/// Stores what a transport found, under the full names it found with it.
fn from_source(
    store: &Store,
    image: &ImageRef,
    source: DiskSource,
    printer: &Printer,
    builder: &dyn DiskBuilder,
) -> Result<StoredImage, ImageError> {
    // Before the disk is made, which takes much longer. What is no configuration
    // was refused by the transport.
    if let Ok(config) = serde_json::from_slice::<ImageConfig>(&source.config) {
        check_platform(image, &config, &Platform::host())?;
    }
    let names: Vec<FullName> = source.names.iter().filter_map(|name| name.parse().ok()).collect();
    let stored = store.ensure_disk(source, printer, builder)?;
    for name in names {
        store.tag(&name, NameRecord::local(stored.digest))?;
    }
    Ok(stored)
}

pub(super) fn check_platform(
    name: &dyn fmt::Display,
    config: &ImageConfig,
    wanted: &Platform,
) -> Result<(), ImageError> {
    let found = &config.platform;
    // Some tools leave it out; what then comes is up to the image.
    if found.architecture.is_empty() || found.rank_for(wanted).is_some() {
        return Ok(());
    }
    Err(ImageError::Platform { name: name.to_string(), found: found.to_string(), wanted: wanted.to_string() })
}

impl fmt::Display for PullPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Always => "always",
            Self::Missing => "missing",
            Self::Newer => "newer",
            Self::Never => "never",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::image::disk::HostBuilder;
    use crate::image::registries::RegistryFiles;
    use crate::image::spec::Platform;
    use crate::image::testing::{Layout, tagged};
    use crate::image::transport::Engines;
    use crate::storage::DataDir;

    struct Place {
        dir: tempfile::TempDir,
        data: DataDir,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let data = DataDir::open(Some(dir.path().join("data"))).unwrap();
            Self { dir, data }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        fn resolve(&self, image: &str, policy: PullPolicy) -> Result<StoredImage, ImageError> {
            let store = Store::with_registries(&self.data, RegistryFiles::none());
            let image = image.parse().unwrap();
            let access = Access { engines: Engines::only(None, ""), ..Access::default() };
            resolve(&image, policy, &store, &access, &Printer::from_env(), &HostBuilder)
        }
    }

    fn layout(dir: &Path, platform: &Platform, tag: &str) -> Layout {
        let mut layout = Layout::default();
        let image = tagged(layout.image(platform, "x"), tag);
        layout.index(&[image]);
        layout.write(dir);
        layout
    }

    #[test]
    fn an_image_is_found_by_source_then_name_then_id() {
        let place = Place::new();
        let layout = layout(&place.path("l"), &Platform::host(), "localhost/hello:v1");
        let oci = format!("oci:{}", place.path("l").display());
        // The policy is about registries.
        let image = place.resolve(&oci, PullPolicy::Always).unwrap();
        assert_eq!(image.config.config.cmd, ["/hello"]);
        assert!(std::fs::metadata(&image.disk).unwrap().len() > 0);

        std::fs::write(place.path("a.tar"), layout.tar()).unwrap();
        std::fs::remove_dir_all(place.path("l")).unwrap();
        let archive = format!("oci-archive:{}:localhost/hello:v1", place.path("a.tar").display());
        for text in [&archive, "hello:v1", "localhost/hello:v1", &image.id.short(), &image.id.to_string()] {
            for policy in [PullPolicy::Missing, PullPolicy::Never] {
                assert_eq!(place.resolve(text, policy).unwrap().digest, image.digest, "{text}");
            }
        }
    }

    #[test]
    fn what_is_not_stored_is_told_with_advice() {
        let place = Place::new();
        let error = place.resolve("nginx", PullPolicy::Never).unwrap_err();
        assert_eq!(error.to_string(), "no image `nginx`");
        assert!(error.hint().is_some());
        for policy in [PullPolicy::Missing, PullPolicy::Always, PullPolicy::Newer] {
            let error = place.resolve("localhost/nginx", policy).unwrap_err();
            assert!(matches!(error, ImageError::Unknown { .. }), "{error:?}");
        }
        assert!(matches!(place.resolve("sha256:00", PullPolicy::Missing), Err(ImageError::Unknown { .. })));
    }

    #[test]
    fn an_image_for_another_machine_is_refused_before_its_disk_is_made() {
        let place = Place::new();
        let dir = place.path("l");
        let mut layout = layout(&dir, &"linux/s390x".parse().unwrap(), "x");
        // The index does not say, the configuration does.
        let index = String::from_utf8(layout.files["index.json"].clone()).unwrap();
        let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
        index["manifests"][0]["platform"].take();
        layout.files.insert("index.json".into(), index.to_string().into());
        layout.write(&dir);
        let error = place.resolve(&format!("oci:{}", dir.display()), PullPolicy::Missing).unwrap_err();
        assert!(matches!(error, ImageError::Platform { .. }), "{error:?}");
        assert!(!place.data.images().exists());
    }
}
