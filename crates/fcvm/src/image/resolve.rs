//! From what the user wrote to an image with a disk.

use std::fmt;

use super::{
    FullName, ImageError, ImageRef, NameRecord, Store, StoredImage, disk::DiskBuilder, model::DiskSource,
    spec::ImageConfig, transport,
};
use crate::output::Printer;

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
/// Archives and layouts are read where they lie, whatever the policy is. A name
/// is looked for in the store; registries would be asked next.
///
/// # Errors
/// Where there is no such image, it cannot be read or stored, or is not for this machine.
pub fn resolve(
    image: &ImageRef,
    policy: PullPolicy,
    store: &Store,
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
        ImageRef::Name(name) => {
            let written = || name.to_string();
            if matches!(policy, PullPolicy::Always | PullPolicy::Newer) {
                return Err(ImageError::Pull { name: written(), policy });
            }
            let digest = store.find(name)?.ok_or_else(|| match policy {
                PullPolicy::Never => ImageError::Unknown { name: written() },
                _ => ImageError::NotStored { name: written() },
            })?;
            for_this_machine(image, store.get(&digest, printer)?)
        }
        ImageRef::Id(id) => {
            let digest = store.find_id(id)?.ok_or_else(|| ImageError::Unknown { name: image.to_string() })?;
            for_this_machine(image, store.get(&digest, printer)?)
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
        check_platform(image, &config)?;
    }
    let names: Vec<FullName> = source.names.iter().filter_map(|name| name.parse().ok()).collect();
    let stored = store.ensure_disk(source, printer, builder)?;
    for name in names {
        store.tag(&name, NameRecord::local(stored.digest))?;
    }
    Ok(stored)
}

fn for_this_machine(image: &ImageRef, stored: StoredImage) -> Result<StoredImage, ImageError> {
    check_platform(image, &stored.config)?;
    Ok(stored)
}

fn check_platform(image: &ImageRef, config: &ImageConfig) -> Result<(), ImageError> {
    let found = &config.platform;
    // Some tools leave it out; what then comes is up to the image.
    if found.architecture.is_empty() || found.rank().is_some() {
        return Ok(());
    }
    Err(ImageError::Platform { name: image.to_string(), found: found.clone() })
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
            resolve(&image.parse().unwrap(), policy, &store, &Printer::from_env(), &HostBuilder)
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
        for (policy, expected) in [
            (
                PullPolicy::Missing,
                "no image `nginx` in the store, and images cannot be pulled from registries yet",
            ),
            (PullPolicy::Never, "no image `nginx`"),
            (
                PullPolicy::Always,
                "image `nginx` cannot be pulled (--pull=always): registries are not supported yet",
            ),
            (
                PullPolicy::Newer,
                "image `nginx` cannot be pulled (--pull=newer): registries are not supported yet",
            ),
        ] {
            let error = place.resolve("nginx", policy).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().is_some());
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
