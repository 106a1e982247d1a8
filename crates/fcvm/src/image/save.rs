//! Writing stored images to archives and layouts, from the blobs that the store has of them.
//!
//! The same images give the same bytes. What is written is read again by `load`, Podman, skopeo
//! and Docker; layers stay as they are stored, compressed or not.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    FullName, ImageError, Store,
    model::DiskSource,
    spec::{Manifest, OCI_MANIFEST},
};
use crate::hash::{Digest, Hasher};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// What images are written as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SaveFormat {
    /// An OCI layout in a tar file
    #[default]
    OciArchive,
    /// An OCI layout in a directory
    OciDir,
    /// What `docker save` writes
    DockerArchive,
}

/// An image to be saved: by its digest, under those names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The image.
    pub digest: Digest,
    /// As the user named it; none where that was an id.
    pub names: Vec<FullName>,
}

/// Where to.
pub enum Target<'a> {
    /// A new directory, or an empty one.
    Directory(&'a Path),
    /// A tar stream; the path is for errors.
    Stream(&'a Path, Box<dyn Write + 'a>),
}

/// Writes images.
///
/// # Errors
/// Where an image's blobs are not in the store or damaged, or the target cannot be written.
pub fn save(
    store: &Store,
    images: &[Saved],
    format: SaveFormat,
    target: Target<'_>,
) -> Result<(), ImageError> {
    // Nobody removes blobs while this lives.
    let _blobs = store.add_blobs()?;
    let sources = images
        .iter()
        .map(|image| match store.blob_source(&image.digest)? {
            Some(source) => Ok((source, image)),
            None => Err(ImageError::NoBlobs { digest: image.digest }),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let files = match format {
        SaveFormat::OciArchive | SaveFormat::OciDir => layout(&sources)?,
        SaveFormat::DockerArchive => docker(&sources)?,
    };
    write(store, files, target)
}

/// Files to be written, in order.
type Files<'a> = Vec<(String, Content<'a>)>;

enum Content<'a> {
    Bytes(Vec<u8>),
    /// A layer of a source.
    Layer(&'a DiskSource, usize),
}

fn manifest(source: &DiskSource) -> Result<Manifest, ImageError> {
    serde_json::from_slice(&source.manifest)
        .map_err(|source| ImageError::Json { path: "manifest.json".into(), source })
}

/// The files of an OCI layout.
fn layout<'a>(sources: &'a [(DiskSource, &Saved)]) -> Result<Files<'a>, ImageError> {
    let mut blobs = BTreeMap::new();
    let mut descriptors = Vec::new();
    for (source, image) in sources {
        let manifest = manifest(source)?;
        let descriptor = json!({
            "mediaType": manifest.media_type.as_deref().unwrap_or(OCI_MANIFEST),
            "digest": source.manifest_digest.to_string(),
            "size": source.manifest.len(),
        });
        let named = image.names.iter().map(|name| {
            let mut named = descriptor.clone();
            named["annotations"] = json!({ REF_NAME: name.to_string() });
            named
        });
        descriptors.extend(named);
        if image.names.is_empty() {
            descriptors.push(descriptor);
        }
        blobs.insert(source.manifest_digest, Content::Bytes(source.manifest.clone()));
        blobs.insert(Digest::of(&source.config), Content::Bytes(source.config.clone()));
        for (index, layer) in manifest.layers.iter().enumerate() {
            blobs.insert(layer.digest, Content::Layer(source, index));
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": descriptors });
    let mut files = vec![
        ("oci-layout".to_owned(), Content::Bytes(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())),
        ("index.json".to_owned(), Content::Bytes(index.to_string().into())),
    ];
    files.extend(
        blobs.into_iter().map(|(digest, content)| (format!("blobs/sha256/{}", digest.hex()), content)),
    );
    Ok(files)
}

/// The files of a docker archive.
fn docker<'a>(sources: &'a [(DiskSource, &Saved)]) -> Result<Files<'a>, ImageError> {
    let mut blobs = BTreeMap::new();
    let mut items: Vec<Value> = Vec::new();
    for (source, image) in sources {
        let config = format!("{}.json", Digest::of(&source.config).hex());
        let layers = manifest(source)?.layers;
        let layers: Vec<_> = layers.iter().map(|layer| format!("{}.tar", layer.digest.hex())).collect();
        items.push(json!({ "Config": config, "RepoTags": image.names, "Layers": layers }));
        blobs.insert(config, Content::Bytes(source.config.clone()));
        for (index, layer) in layers.into_iter().enumerate() {
            blobs.insert(layer, Content::Layer(source, index));
        }
    }
    let items = Value::Array(items).to_string();
    let mut files = vec![("manifest.json".to_owned(), Content::Bytes(items.into()))];
    files.extend(blobs);
    Ok(files)
}

fn write(store: &Store, files: Files<'_>, target: Target<'_>) -> Result<(), ImageError> {
    match target {
        Target::Directory(directory) => {
            let failed = |path: PathBuf| move |source| ImageError::Write { path, source };
            fs_err::create_dir_all(directory.join("blobs/sha256")).map_err(failed(directory.to_owned()))?;
            for (name, content) in files {
                let path = directory.join(name);
                let mut file = File::create(&path).map_err(failed(path.clone()))?;
                let (mut reader, _) = open(store, &content)?;
                copy(&mut reader, &mut file, &path)?;
                reader.check()?;
            }
            Ok(())
        }
        Target::Stream(path, stream) => {
            let failed = |source| ImageError::Write { path: path.to_owned(), source };
            let mut tar = tar::Builder::new(io::BufWriter::with_capacity(256 << 10, stream));
            for (name, content) in files {
                let (mut reader, size) = open(store, &content)?;
                let mut header = tar::Header::new_ustar();
                header.set_path(&name).map_err(failed)?;
                header.set_size(size);
                header.set_mode(0o644);
                header.set_cksum();
                let appended = tar.append(&header, &mut reader);
                // Whose fault it was is told by the reader.
                reader.check()?;
                appended.map_err(failed)?;
            }
            tar.into_inner().and_then(|mut stream| stream.flush()).map_err(failed)
        }
    }
}

/// Copies, and blames the writer: the reader's failures are kept by itself.
fn copy(reader: &mut Checked, file: &mut File, path: &Path) -> Result<(), ImageError> {
    match io::copy(reader, file) {
        Err(_) if reader.failure.is_some() => Ok(()),
        copied => copied.map(drop).map_err(|source| ImageError::Write { path: path.to_owned(), source }),
    }
}

fn open(store: &Store, content: &Content<'_>) -> Result<(Checked, u64), ImageError> {
    Ok(match content {
        Content::Bytes(bytes) => {
            let size = bytes.len() as u64;
            let reader = Box::new(io::Cursor::new(bytes.clone()));
            (Checked { reader, hasher: Hasher::default(), expected: None, failure: None }, size)
        }
        Content::Layer(source, index) => {
            let layer = &source.layers[*index];
            let digest = layer.digest.unwrap_or(source.manifest_digest);
            let path = store.blob_directory().join(digest.hex());
            let read = |source| ImageError::Read { path: path.clone(), source };
            let reader = (layer.open)().map_err(read)?;
            let size = match layer.size {
                Some(size) => size,
                None => std::fs::metadata(&path).map_err(read)?.len(),
            };
            let expected = Some((path, digest));
            (Checked { reader, hasher: Hasher::default(), expected, failure: None }, size)
        }
    })
}

/// Reads, and knows at the end whether it was what it should be.
struct Checked {
    reader: Box<dyn Read + Send>,
    hasher: Hasher,
    /// The blob and its digest.
    expected: Option<(PathBuf, Digest)>,
    failure: Option<io::Error>,
}

impl Checked {
    fn check(self) -> Result<(), ImageError> {
        match (self.expected, self.failure) {
            (Some((path, _)), Some(source)) => Err(ImageError::Read { path, source }),
            (Some((path, digest)), None) if self.hasher.clone().finish() != digest => {
                Err(ImageError::Corrupt { path })
            }
            _ => Ok(()),
        }
    }
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.reader.read(buffer) {
            Ok(count) => {
                self.hasher.write_all(&buffer[..count])?;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::from(error.kind());
                self.failure = Some(error);
                Err(told)
            }
        }
    }
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => f.debug_tuple("Directory").field(path).finish(),
            Self::Stream(path, _) => f.debug_tuple("Stream").field(path).finish_non_exhaustive(),
        }
    }
}
