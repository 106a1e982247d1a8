//! Making an image's disk, once.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use bytesize::ByteSize;

use super::{
    Store,
    image::{CONFIG, DISK, LOCK, Loaded, MANIFEST, RECORD, StoredImage},
    record::Record,
};
use crate::{
    hash::Digest,
    image::{
        ImageError,
        disk::{DiskBuilder, DiskError},
        model::{DiskSource, DiskStats, OpenLayer},
        spec::Descriptor,
    },
    output::{Printer, Progress, Unit},
    storage::{Lock, TEMPORARY_PREFIX},
};

impl Store {
    /// The image of that source, its disk made if it is not there yet. Of
    /// several processes that want it at once, one makes it and the others wait.
    ///
    /// # Errors
    /// Where there is no space, a layer is not what its digest says, or writing fails.
    pub fn ensure_disk(
        &self,
        source: DiskSource,
        printer: &Printer,
        builder: &dyn DiskBuilder,
    ) -> Result<StoredImage, ImageError> {
        self.ensure_with(source, printer, |target, source| builder.build(target, source))
    }

    pub(super) fn ensure_with(
        &self,
        source: DiskSource,
        printer: &Printer,
        build: impl FnOnce(&Path, &DiskSource) -> Result<DiskStats, DiskError>,
    ) -> Result<StoredImage, ImageError> {
        let digest = source.manifest_digest;
        if let Loaded::Ready(image) = self.load(&digest)? {
            return Ok(*image);
        }
        let _lock = Lock::acquire(&self.lock_path(&digest), || {
            printer.note(format_args!("waiting for another fcvm that prepares image {}", digest.short()));
        })?;
        if let Loaded::Ready(image) = self.load(&digest)? {
            return Ok(*image);
        }
        self.sweep(&digest)?;
        self.check_space(&source)?;
        self.build(source, printer, build)?;
        match self.load(&digest)? {
            Loaded::Ready(image) => Ok(*image),
            Loaded::Absent => Err(ImageError::Unknown { name: digest.to_string() }),
            Loaded::Unusable { path } => Err(ImageError::Corrupt { path }),
        }
    }

    pub(super) fn build(
        &self,
        mut source: DiskSource,
        printer: &Printer,
        build: impl FnOnce(&Path, &DiskSource) -> Result<DiskStats, DiskError>,
    ) -> Result<(), ImageError> {
        let digest = source.manifest_digest;
        let temporary = self.temporary(&digest)?;
        let label = source.names.first().cloned().unwrap_or_else(|| digest.short());
        let progress = Arc::new(printer.progress(format!("preparing image {label}")));
        count_layers(&mut source, &progress);

        let path = temporary.path().join(DISK);
        let stats =
            build(&path, &source).map_err(|error| ImageError::Disk { digest, source: Box::new(error) })?;
        // Not durable with the rename below, a power failure could leave an
        // image that looks whole and has holes.
        let disk = File::open(&path).and_then(|disk| disk.sync_all().and_then(|()| disk.metadata()));
        let disk = disk.map_err(|source| ImageError::Write { path, source })?;
        let stored = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let record = Record::new(Digest::of(&source.config), stored, &stats, &disk);
        let path = temporary.path().join(RECORD);
        let record =
            serde_json::to_vec(&record).map_err(|source| ImageError::Json { path: path.clone(), source })?;
        for (name, bytes) in
            [(MANIFEST, &source.manifest), (CONFIG, &source.config), (LOCK, &Vec::new()), (RECORD, &record)]
        {
            let path = temporary.path().join(name);
            write_synced(&path, bytes).map_err(|source| ImageError::Write { path, source })?;
        }
        self.put_in_place(&digest, temporary)?;
        drop(source);
        if let Some(progress) = Arc::into_inner(progress) {
            let size = ByteSize(stats.unpacked).display().si();
            progress.done(&format!("{size} in {} files", stats.files));
        }
        Ok(())
    }

    /// A directory that the next who locks this image removes if we do not.
    pub(super) fn temporary(&self, digest: &Digest) -> Result<tempfile::TempDir, ImageError> {
        let prefix = temporary_prefix(digest);
        tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir_in(&self.images)
            .map_err(|source| ImageError::Write { path: self.images.join(prefix), source })
    }

    /// Renames the finished directory. A damaged one in its place goes first: a
    /// crash between the two leaves no image, which is made again.
    fn put_in_place(&self, digest: &Digest, temporary: tempfile::TempDir) -> Result<(), ImageError> {
        let target = self.directory(digest);
        let failed = |source| ImageError::Write { path: target.clone(), source };
        self.discard(digest)?;
        File::open(temporary.path()).and_then(|directory| directory.sync_all()).map_err(failed)?;
        std::fs::rename(temporary.path(), &target).map_err(failed)?;
        // It has another name now, and must not be looked for under the old one.
        drop(temporary.keep());
        File::open(&self.images).and_then(|directory| directory.sync_all()).map_err(failed)
    }

    /// Removes what builds that were killed left of this image. To be called with its lock held.
    fn sweep(&self, digest: &Digest) -> Result<(), ImageError> {
        let prefix = temporary_prefix(digest);
        let failed = |source| ImageError::Read { path: self.images.clone(), source };
        for entry in std::fs::read_dir(&self.images).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let path = entry.path();
                std::fs::remove_dir_all(&path).map_err(|source| ImageError::Remove { path, source })?;
            }
        }
        Ok(())
    }

    /// What the layers take compressed is the least that the disk will take.
    fn check_space(&self, source: &DiskSource) -> Result<(), ImageError> {
        require(&self.images, source.layers.iter().filter_map(|layer| layer.size))
    }

    /// Makes sure that the blobs that are missing fit.
    pub(in crate::image) fn check_space_for_blobs(&self, blobs: &[Descriptor]) -> Result<(), ImageError> {
        let there = |blob: &Descriptor| {
            let name = blob.digest.hex();
            let size = |path: PathBuf| std::fs::metadata(path).map_or(0, |file| file.len());
            size(self.blob_directory().join(&name)).max(size(self.partial_directory().join(&name)))
        };
        require(&self.blobs, blobs.iter().map(|blob| blob.size.saturating_sub(there(blob))))
    }
}

/// Makes sure that there is space for files of these sizes.
fn require(directory: &Path, sizes: impl Iterator<Item = u64>) -> Result<(), ImageError> {
    let path = || directory.to_owned();
    let needed = sizes.fold(0, u64::saturating_add);
    let space = rustix::fs::statvfs(directory)
        .map_err(|error| ImageError::Read { path: path(), source: error.into() })?;
    let available = space.f_bavail.saturating_mul(space.f_frsize);
    if needed > available {
        return Err(ImageError::Space { path: path(), needed, available });
    }
    Ok(())
}

/// What temporary directories of an image begin with.
pub(super) fn temporary_prefix(digest: &Digest) -> String {
    format!("{TEMPORARY_PREFIX}{}-", digest.hex())
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

/// Has the progress count what is read of the layers.
fn count_layers(source: &mut DiskSource, progress: &Arc<Progress>) {
    let sizes = source.layers.iter().map(|layer| layer.size);
    if let Some(total) = sizes.sum::<Option<u64>>() {
        progress.set_unit(Unit::Bytes(total));
    }
    for layer in &mut source.layers {
        let progress = progress.clone();
        let nothing: OpenLayer = Box::new(|| Err(io::ErrorKind::NotFound.into()));
        let open = std::mem::replace(&mut layer.open, nothing);
        layer.open = Box::new(move || Ok(Box::new(Counted { reader: open()?, progress: progress.clone() })));
    }
}

struct Counted {
    reader: Box<dyn Read + Send>,
    progress: Arc<Progress>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}
