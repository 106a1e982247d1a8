//! Versioned JSON files of the store.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use serde::{Deserialize, de::DeserializeOwned};

use crate::image::ImageError;

/// The largest file of names: a few hundred thousand of them.
pub(super) const MAX_NAMES: u64 = 64 << 20;

/// All bytes of a file, if there is one, and it is of a size that fcvm may have written.
pub(super) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, ImageError> {
    let failed = |source| ImageError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(ImageError::Corrupt { path: path.to_owned() });
    }
    Ok(Some(bytes))
}

/// A file's content, after a look at its version.
pub(super) fn read_versioned<T: DeserializeOwned>(
    path: &Path,
    supported: u32,
    limit: u64,
) -> Result<Option<T>, ImageError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Some(bytes) = read(path, limit)? else { return Ok(None) };
    let invalid = |source| ImageError::Json { path: path.to_owned(), source };
    let Versioned { version: found } = serde_json::from_slice(&bytes).map_err(invalid)?;
    if found > supported {
        return Err(ImageError::TooNew { path: path.to_owned(), found, supported });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(invalid)
}
