//! Making an image of a root file system's tarball.
//!
//! The same tarball and options make the same image, byte for byte: `created` is
//! `SOURCE_DATE_EPOCH`, or 1970-01-01, and a tarball that is plain, gzip or zstd
//! is its layer as it is. Xz, which layers cannot be, becomes zstd.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{
    FullName, ImageError, ImageName, NameRecord, Store,
    disk::HostBuilder,
    model::{Compression, DiskSource, LayerSource, OpenLayer},
    spec::{
        Descriptor, History, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD,
        OCI_MANIFEST, Platform, RootFs, RunConfig,
    },
    store::{BlobAdder, PendingBlob, StoredImage},
    transport::decompress::{Magic, decoder},
};
use crate::{
    hash::{Digest, Hasher},
    output::{Printer, Unit},
};

const ZSTD_LEVEL: i32 = 3;
const BUFFER: usize = 256 << 10;

/// Where a tarball is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tarball {
    /// In a file.
    File(PathBuf),
    /// On standard input.
    Stdin,
}

/// What an imported image says of itself.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// How it runs.
    pub run: RunConfig,
    /// What machine it is for.
    pub platform: Platform,
    /// When it was made, in seconds since 1970.
    pub created: i64,
}

/// Makes an image named `name` of a tarball, with its disk. Of a bad tarball nothing is left.
///
/// # Errors
/// Where the tarball cannot be read, is no tarball, or there is no space for it.
pub fn import(
    store: &Store,
    name: &ImageName,
    tarball: &Tarball,
    options: ImportOptions,
    printer: &Printer,
) -> Result<StoredImage, ImageError> {
    let name = name.local().map_err(|source| ImageError::ImportName { name: name.to_string(), source })?;
    let blobs = store.add_blobs()?;
    let layer = Layer::read(&blobs, tarball, printer)?;

    let config = encode(&config_of(options, layer.diff_id))?;
    let config = (blobs.add(&config)?, config);
    let manifest = encode(&Manifest {
        schema_version: 2,
        media_type: Some(OCI_MANIFEST.into()),
        config: descriptor(OCI_CONFIG, &config.0),
        layers: vec![descriptor(layer.media_type, &layer.blob)],
    })?;
    let manifest = (blobs.add(&manifest)?, manifest);

    // The disk before the blobs get their names: it is what tells a tarball from anything else.
    let stored = store.ensure_disk(source(&name, &manifest, &config.1, &layer), printer, &HostBuilder)?;
    for blob in [layer.blob, config.0, manifest.0] {
        blob.commit()?;
    }
    store.tag(&name, NameRecord::local(stored.digest))?;
    Ok(stored)
}

/// The time that a reproducible image carries: `SOURCE_DATE_EPOCH`, or 1970.
///
/// # Errors
/// Where the variable is set to something else than seconds.
pub fn created_from_env(value: Option<&str>) -> Result<i64, ImageError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(0) };
    let seconds = value.parse::<i64>().ok().filter(|&seconds| timestamp(seconds).is_some());
    seconds.ok_or_else(|| ImageError::SourceDateEpoch { value: value.to_owned() })
}

fn timestamp(seconds: i64) -> Option<String> {
    jiff::Timestamp::from_second(seconds).ok().map(|time| time.to_string())
}

/// The tarball as a layer.
struct Layer {
    blob: PendingBlob,
    media_type: &'static str,
    compression: Compression,
    diff_id: Digest,
}

impl Layer {
    fn read(blobs: &BlobAdder, tarball: &Tarball, printer: &Printer) -> Result<Self, ImageError> {
        let (path, mut input): (_, Box<dyn Read + Send>) = match tarball {
            Tarball::File(path) => (path.as_path(), Box::new(open(path)?)),
            Tarball::Stdin => (Path::new("-"), Box::new(io::stdin())),
        };
        let progress = printer.progress(format!("reading {}", path.display()));
        if let Tarball::File(path) = tarball
            && let Some(size) = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)
        {
            progress.set_unit(Unit::Bytes(size.len()));
        }
        let read = |source| ImageError::Read { path: path.to_owned(), source };
        let (magic, input) =
            Magic::detect(Counted { reader: &mut input, count: |n| progress.add(n) }).map_err(read)?;
        let (media_type, compression) = match magic {
            Magic::Gzip => (OCI_LAYER_GZIP, Compression::Gzip),
            Magic::Zstd | Magic::Xz => (OCI_LAYER_ZSTD, Compression::Zstd),
            Magic::Plain | Magic::Bzip2 => (OCI_LAYER, Compression::None),
        };
        let mut blob = blobs.create()?;
        let blob_path = blob.path().to_owned();
        let write = |source| ImageError::Write { path: blob_path.clone(), source };
        let mut hasher = Hasher::default();
        let (blob, uncompressed) = match magic {
            Magic::Plain => {
                let copied = copy(input, [&mut blob, &mut hasher], read, write)?;
                (blob.finish(), copied)
            }
            Magic::Gzip | Magic::Zstd => {
                copy(input, [&mut blob], read, write)?;
                let blob = blob.finish();
                let stored = io::BufReader::with_capacity(BUFFER, open(blob.path())?);
                let copied = copy(decoder(magic, stored).map_err(read)?, [&mut hasher], read, write)?;
                (blob, copied)
            }
            Magic::Xz | Magic::Bzip2 => {
                let decoder = decoder(magic, input).map_err(read)?;
                let mut encoder = zstd::Encoder::new(&mut blob, ZSTD_LEVEL).map_err(write)?;
                let copied = copy(decoder, [&mut encoder, &mut hasher], read, write)?;
                encoder.finish().map_err(write)?;
                (blob.finish(), copied)
            }
        };
        if uncompressed == 0 {
            return Err(ImageError::EmptyTarball { path: path.to_owned() });
        }
        let size = bytesize::ByteSize(uncompressed).display().si().to_string();
        progress.done(&size);
        Ok(Self { blob, media_type, compression, diff_id: hasher.finish() })
    }
}

fn config_of(options: ImportOptions, diff_id: Digest) -> ImageConfig {
    let created = timestamp(options.created);
    ImageConfig {
        created: created.clone(),
        platform: options.platform,
        config: options.run,
        rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
        history: vec![History {
            created,
            created_by: Some("fcvm image import".into()),
            ..History::default()
        }],
    }
}

fn source(name: &FullName, manifest: &(PendingBlob, Vec<u8>), config: &[u8], layer: &Layer) -> DiskSource {
    let path = layer.blob.path().to_owned();
    let open: OpenLayer = Box::new(move || Ok(Box::new(File::open(&path)?)));
    let layer = LayerSource {
        digest: Some(layer.blob.digest),
        size: Some(layer.blob.size),
        compression: layer.compression,
        open,
    };
    DiskSource {
        manifest_digest: manifest.0.digest,
        manifest: manifest.1.clone(),
        config: config.to_vec(),
        names: vec![name.to_string()],
        layers: vec![layer],
    }
}

fn descriptor(media_type: &str, blob: &PendingBlob) -> Descriptor {
    Descriptor {
        media_type: media_type.into(),
        digest: blob.digest,
        size: blob.size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

fn open(path: &Path) -> Result<File, ImageError> {
    File::open(path).map_err(|source| ImageError::Read { path: path.to_owned(), source })
}

fn encode(value: &impl serde::Serialize) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|source| ImageError::Json { path: "-".into(), source })
}

/// Copies to several writers; which side failed decides what the error says.
fn copy<const N: usize>(
    mut reader: impl Read,
    mut writers: [&mut dyn Write; N],
    read: impl Fn(io::Error) -> ImageError,
    write: impl Fn(io::Error) -> ImageError,
) -> Result<u64, ImageError> {
    let mut buffer = vec![0; BUFFER];
    let mut total = 0;
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        for writer in &mut writers {
            writer.write_all(&buffer[..count]).map_err(&write)?;
        }
        total += count as u64;
    }
}

/// Tells how much is read.
struct Counted<R, F> {
    reader: R,
    count: F,
}

impl<R: Read, F: Fn(u64)> Read for Counted<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        (self.count)(count as u64);
        Ok(count)
    }
}
