//! The files of a layout, in a directory or an archive.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;
use serde::de::DeserializeOwned;

use super::TransportError;
use crate::{
    hash::Digest,
    image::{
        model::OpenLayer,
        spec::{Descriptor, MAX_JSON},
    },
};

/// A file found: how large it is and how to read it.
pub(in crate::image) struct Found {
    pub(in crate::image) size: u64,
    pub(in crate::image) open: OpenLayer,
}

/// Files by their names within a layout. Names come from parsed digests or,
/// in an archive, are only looked up in its index: neither leads out of it.
pub(in crate::image) trait Files {
    /// Where all this lies, for errors.
    fn path(&self) -> &Path;

    /// The file of that name.
    ///
    /// # Errors
    /// [`TransportError::Missing`] where there is none.
    fn find(&self, name: &str) -> Result<Found, TransportError>;

    /// All bytes of a small file.
    ///
    /// # Errors
    /// Where it is missing, too large or cannot be read.
    fn read(&self, name: &str) -> Result<Vec<u8>, TransportError> {
        let found = self.find(name)?;
        let path = || self.path().to_owned();
        if found.size > MAX_JSON {
            let (name, size) = (name.to_owned(), found.size);
            return Err(TransportError::TooLarge { path: path(), name, size, limit: MAX_JSON });
        }
        let mut bytes = Vec::new();
        (found.open)()
            .and_then(|reader| reader.take(MAX_JSON).read_to_end(&mut bytes))
            .map_err(|source| TransportError::Read { path: path(), source })?;
        Ok(bytes)
    }

    /// A blob of a descriptor, verified.
    ///
    /// # Errors
    /// As of [`read`](Self::read), and where size or digest are not as said.
    fn read_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, TransportError> {
        let name = blob_name(&descriptor.digest);
        let bytes = self.read(&name)?;
        self.check_size(&name, descriptor.size, bytes.len() as u64)?;
        self.check_digest(&name, descriptor.digest, &bytes)?;
        Ok(bytes)
    }

    /// # Errors
    /// Where the bytes do not have the digest.
    fn check_digest(&self, name: &str, expected: Digest, bytes: &[u8]) -> Result<(), TransportError> {
        let found = Digest::of(bytes);
        if found == expected {
            return Ok(());
        }
        Err(TransportError::Digest { path: self.path().to_owned(), name: name.to_owned(), expected, found })
    }

    /// # Errors
    /// Where the sizes differ.
    fn check_size(&self, name: &str, expected: u64, found: u64) -> Result<(), TransportError> {
        if found == expected {
            return Ok(());
        }
        Err(TransportError::Size { path: self.path().to_owned(), name: name.to_owned(), expected, found })
    }
}

/// The name of a blob in a layout.
pub(in crate::image) fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Reads JSON that was found in `files` as `name`.
pub(in crate::image) fn json<T: DeserializeOwned>(
    files: &dyn Files,
    name: &str,
    bytes: &[u8],
) -> Result<T, TransportError> {
    serde_json::from_slice(bytes).map_err(|source| TransportError::Json {
        path: files.path().to_owned(),
        name: name.to_owned(),
        source,
    })
}

/// Files in a directory.
pub(super) struct Directory {
    path: PathBuf,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }
}

impl Files for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn find(&self, name: &str) -> Result<Found, TransportError> {
        let path = self.path.join(name);
        let file = open_regular(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if self.path.is_dir() => {
                TransportError::Missing { path: self.path.clone(), name: name.to_owned() }
            }
            io::ErrorKind::NotFound => TransportError::Read { path: self.path.clone(), source },
            _ => TransportError::Read { path: path.clone(), source },
        })?;
        let size =
            file.metadata().map_err(|source| TransportError::Read { path: path.clone(), source })?.len();
        Ok(Found { size, open: Box::new(move || Ok(Box::new(open_regular(&path)?))) })
    }
}

/// Opens a file that is one: not a pipe or device, on which reading might wait for ever.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}
