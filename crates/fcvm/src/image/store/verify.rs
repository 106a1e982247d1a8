//! Reading again all that the store has, and repairing what is not what it was.
//!
//! A disk is compared with one that is made anew from the image's blobs, byte by byte: the same
//! blobs give the same disk. One that a guest made, which gives other bytes each time, is told by
//! its file system's identifier, and is not compared.

use std::{
    collections::HashSet,
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
};

use super::{
    NameRecord, Origin, Store,
    image::{DISK, Loaded},
};
use crate::{
    hash::Digest,
    image::{
        FullName, ImageError,
        disk::{DiskBuilder, HostBuilder},
        model::DiskSource,
    },
    output::Printer,
    storage::{Lock, TEMPORARY_PREFIX},
};

/// Fetches an image again, so that blobs that are missing are there afterwards.
pub type Refetch<'a> = &'a dyn Fn(&FullName, &NameRecord) -> Result<(), ImageError>;

/// What is done about damage.
#[derive(Clone, Copy)]
pub enum Repair<'a> {
    /// Nothing.
    No,
    /// Bad blobs are removed, and fetched again where there is a way; disks are made anew.
    Yes(Option<Refetch<'a>>),
}

/// Something that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub what: Wrong,
    /// What was done about it.
    pub outcome: Outcome,
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// Its digest is not its name.
    Digest,
    /// It is not there, and its image's other blobs are.
    Missing,
    /// It was changed, is of an older format or cannot be read.
    Changed,
    /// It has other bytes than a disk made anew.
    Bytes,
}

/// What was done about damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Left,
    /// Nothing, since a VM uses it.
    InUse,
    /// It was removed, and there is no other.
    Removed,
    /// It is as it should be.
    Repaired,
}

impl Store {
    /// All images.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn all_images(&self) -> Result<Vec<Digest>, ImageError> {
        self.digests()
    }

    /// Reads again all of some images.
    ///
    /// # Errors
    /// Where something cannot be read or repaired for another reason than damage.
    pub fn verify_images(
        &self,
        images: &[Digest],
        repair: Repair<'_>,
        printer: &Printer,
    ) -> Result<Vec<Damage>, ImageError> {
        let mut seen = HashSet::new();
        let mut damaged = Vec::new();
        for digest in images {
            damaged.extend(self.verify_image(digest, repair, &mut seen, printer)?);
        }
        Ok(damaged)
    }

    /// Reads again all blobs that no image refers to.
    ///
    /// # Errors
    /// As of [`verify_images`](Self::verify_images).
    pub fn verify_unused_blobs(&self, repair: Repair<'_>) -> Result<Vec<Damage>, ImageError> {
        let mut used = HashSet::new();
        for digest in self.digests()? {
            used.extend(self.blobs_of(&digest));
        }
        let directory = self.blob_directory();
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|source| ImageError::Read { path: directory.clone(), source })?,
        };
        let mut names: Vec<_> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !used.contains(name) && !name.starts_with(TEMPORARY_PREFIX));
        names.sort();
        let mut damaged = Vec::new();
        for name in names {
            if let Some(mut damage) = self.check_blob(&name)? {
                self.remove_blob(&mut damage, repair)?;
                // Nobody misses it.
                if damage.outcome == Outcome::Removed {
                    damage.outcome = Outcome::Repaired;
                }
                damaged.push(damage);
            }
        }
        Ok(damaged)
    }

    fn verify_image(
        &self,
        digest: &Digest,
        repair: Repair<'_>,
        seen: &mut HashSet<String>,
        printer: &Printer,
    ) -> Result<Vec<Damage>, ImageError> {
        let progress = printer.progress(format!("verifying image {}", digest.short()));
        let mut damaged = self.verify_blobs(digest, repair, seen, printer)?;
        let whole = damaged.iter().all(|damage| damage.outcome == Outcome::Repaired);
        let source = if whole { self.blob_source(digest)? } else { None };
        match self.load(digest)? {
            Loaded::Absent => return Err(ImageError::Unknown { name: digest.to_string() }),
            Loaded::Unusable { path } => {
                let mut outcome = Outcome::Left;
                if let (Repair::Yes(_), Some(source)) = (repair, source) {
                    self.ensure_disk(source, printer, &HostBuilder)?;
                    outcome = Outcome::Repaired;
                }
                damaged.push(Damage { path, what: Wrong::Changed, outcome });
            }
            Loaded::Ready(image) => {
                if let Some(source) = source
                    && let Some(outcome) = self.compare_disk(&image.disk, source, repair, printer)?
                {
                    damaged.push(Damage { path: image.disk, what: Wrong::Bytes, outcome });
                }
            }
        }
        progress.done(if damaged.is_empty() { "good" } else { "damaged" });
        Ok(damaged)
    }

    /// Looks at the blobs of an image, unless it has none: it was run from where it lies.
    fn verify_blobs(
        &self,
        digest: &Digest,
        repair: Repair<'_>,
        seen: &mut HashSet<String>,
        printer: &Printer,
    ) -> Result<Vec<Damage>, ImageError> {
        let mut blobs: Vec<_> = self.blobs_of(digest).into_iter().collect();
        blobs.sort();
        let path = |blob: &String| self.blob_directory().join(blob);
        if !blobs.iter().any(|blob| path(blob).exists()) {
            return Ok(Vec::new());
        }
        let mut damaged = Vec::new();
        for blob in blobs.iter().filter(|blob| seen.insert((*blob).clone())) {
            if let Some(mut damage) = self.check_blob(blob)? {
                self.remove_blob(&mut damage, repair)?;
                damaged.push(damage);
            }
        }
        let Repair::Yes(Some(refetch)) = repair else { return Ok(damaged) };
        let from_registry = self.names_of(digest)?.into_iter().find(|(_, of)| of.origin == Origin::Registry);
        if damaged.is_empty() {
            return Ok(damaged);
        }
        if let Some((name, record)) = from_registry {
            if let Err(error) = refetch(&name, &record) {
                let error = anyhow::Error::from(error);
                printer.warn(format_args!("image `{name}` cannot be fetched again: {error:#}"));
            }
            for damage in &mut damaged {
                let name = damage.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if self.check_blob(&name)?.is_none() {
                    damage.outcome = Outcome::Repaired;
                }
            }
        }
        Ok(damaged)
    }

    /// A blob, by its hex digits.
    fn check_blob(&self, name: &str) -> Result<Option<Damage>, ImageError> {
        let path = self.blob_directory().join(name);
        let read = |source| ImageError::Read { path: path.clone(), source };
        let what = match File::open(&path) {
            Ok(mut file) => {
                let found = Digest::of_reader(&mut file).map_err(read)?;
                (found.hex() != name).then_some(Wrong::Digest)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Wrong::Missing),
            Err(error) => return Err(read(error)),
        };
        Ok(what.map(|what| Damage { path, what, outcome: Outcome::Left }))
    }

    fn remove_blob(&self, damage: &mut Damage, repair: Repair<'_>) -> Result<(), ImageError> {
        if damage.what != Wrong::Digest || matches!(repair, Repair::No) {
            return Ok(());
        }
        // Not while somebody may put a good one in its place.
        let _lock = Lock::acquire(&self.blobs.join("lock"), || {
            tracing::info!("waiting for another fcvm that adds blobs");
        })?;
        let path = &damage.path;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        damage.outcome = match self.check_blob(&name)? {
            None => Outcome::Repaired,
            Some(found) => {
                if found.what == Wrong::Digest {
                    std::fs::remove_file(path)
                        .map_err(|source| ImageError::Remove { path: path.clone(), source })?;
                }
                Outcome::Removed
            }
        };
        Ok(())
    }

    /// Makes the disk again and compares; what was done where they differ.
    fn compare_disk(
        &self,
        disk: &Path,
        source: DiskSource,
        repair: Repair<'_>,
        printer: &Printer,
    ) -> Result<Option<Outcome>, ImageError> {
        let digest = source.manifest_digest;
        let _lock = Lock::acquire(&self.lock_path(&digest), || {
            printer.note(format_args!("waiting for another fcvm that prepares image {}", digest.short()));
        })?;
        let temporary = self.temporary(&digest)?;
        let fresh = temporary.path().join(DISK);
        let stats = match HostBuilder.build(&fresh, &source) {
            // A guest made it; or a layer is bad, which was told with the image that had it first.
            Err(error) if error.is_unsupported() || error.is_bad_layer() => return Ok(None),
            built => built.map_err(|error| ImageError::Disk { digest, source: Box::new(error) })?,
        };
        let outcome = match compare(&fresh, disk)? {
            Comparison::Same | Comparison::OtherMaker => None,
            Comparison::Different if matches!(repair, Repair::No) => Some(Outcome::Left),
            Comparison::Different => match self.own_disk(&digest, &digest.to_string()) {
                Err(ImageError::InUse { .. }) => Some(Outcome::InUse),
                Err(error) => return Err(error),
                Ok(_use) => {
                    self.build(source, printer, |target, _| {
                        std::fs::rename(&fresh, target)
                            .map_err(|source| crate::image::disk::DiskError::Write {
                                path: target.to_owned(),
                                source,
                            })
                            .map(|()| stats)
                    })?;
                    Some(Outcome::Repaired)
                }
            },
        };
        temporary.close().map_err(|source| ImageError::Remove { path: fresh, source })?;
        Ok(outcome)
    }
}

enum Comparison {
    Same,
    Different,
    /// Another program's file system.
    OtherMaker,
}

/// Where an ext4 file system's identifier and label are.
const IDENTITY: std::ops::Range<usize> = 1024 + 0x68..1024 + 0x88;

fn compare(fresh: &Path, disk: &Path) -> Result<Comparison, ImageError> {
    const CHUNK: usize = 1 << 20;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ImageError::Read { path, source }
    };
    let open = |path: &Path| File::open(path).map_err(failed(path));
    let (mut one, mut two) = (open(fresh)?, open(disk)?);
    let mut heads = [[0; IDENTITY.end]; 2];
    one.read_exact(&mut heads[0]).map_err(failed(fresh))?;
    if two.read_exact(&mut heads[1]).is_ok() {
        let identity = heads.map(|head| <[u8; 32]>::try_from(&head[IDENTITY]).unwrap_or_default());
        // Both differ: damage hardly looks like that.
        if identity[0][..16] != identity[1][..16] && identity[0][16..] != identity[1][16..] {
            return Ok(Comparison::OtherMaker);
        }
    }
    one.rewind().map_err(failed(fresh))?;
    two.rewind().map_err(failed(disk))?;
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    loop {
        let count = fill(&mut one, &mut buffers[0]).map_err(failed(fresh))?;
        let other = fill(&mut two, &mut buffers[1]).map_err(failed(disk))?;
        if buffers[0][..count] != buffers[1][..other] {
            return Ok(Comparison::Different);
        }
        if count == 0 {
            return Ok(Comparison::Same);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

impl fmt::Debug for Repair<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "No",
            Self::Yes(None) => "Yes(None)",
            Self::Yes(Some(_)) => "Yes(Some(_))",
        })
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.what {
            Wrong::Digest => "has another digest than its name",
            Wrong::Missing => "is missing",
            Wrong::Changed => "was changed, or is of an older format",
            Wrong::Bytes => "differs from a disk made anew",
        };
        let outcome = match self.outcome {
            Outcome::Left => "",
            Outcome::InUse => "; a VM uses it: not replaced",
            Outcome::Removed => "; removed",
            Outcome::Repaired => "; repaired",
        };
        write!(f, "{}: {what}{outcome}", self.path.display())
    }
}
