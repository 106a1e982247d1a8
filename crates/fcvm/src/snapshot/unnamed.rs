//! A snapshot that nobody calls anything: it is there as long as somebody uses it.
//!
//! ```text
//! absent -- reserve --> .tmp-* (empty) -- commit --> .tmp-* (whole) -- its last user ends --> absent
//! ```
//! It keeps the kind of name by which every command knows what to remove once nobody has it: who asks for it
//! has it from the start, then who writes it, then each of its clones. So nothing has to be done for it to go,
//! whoever of them is killed and when.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{SCRATCH, STATE, SnapshotError, SnapshotTag, lock::DirectoryLock, partial::directory_in};
use crate::{failpoint, storage::TEMPORARY_PREFIX};

/// The place of one, which stays as long as this lives, or another one who has it.
#[derive(Debug)]
pub struct Unnamed {
    name: String,
    directory: PathBuf,
    _lock: DirectoryLock,
}

impl Unnamed {
    pub(super) fn reserve(root: &Path) -> Result<Self, SnapshotError> {
        loop {
            let directory = directory_in(root)?;
            let shared = DirectoryLock::share(directory.path());
            // Another command may have taken it for what a crash left.
            if let Some(lock) = shared.map_err(SnapshotError::io("lock", directory.path()))? {
                let directory = directory.keep();
                let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                failpoint::reach("snapshot-reserved");
                return Ok(Self { name: name.to_owned(), directory, _lock: lock });
            }
        }
    }

    /// By which others find it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A tag for those who want one: no other snapshot's.
    #[must_use]
    pub fn tag(&self) -> Option<SnapshotTag> {
        format!("fork-{}", self.name.strip_prefix(TEMPORARY_PREFIX)?).parse().ok()
    }

    /// Removes what nobody needs any more who has gone on from it: all but the memory.
    ///
    /// # Errors
    /// Where that cannot be removed.
    pub fn trim(&self) -> Result<(), SnapshotError> {
        for name in [SCRATCH, STATE] {
            let path = self.directory.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(SnapshotError::io("remove", &path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The directory of that name, where it can be of one.
pub(super) fn directory(root: &Path, name: &str) -> Option<PathBuf> {
    let random = name.strip_prefix(TEMPORARY_PREFIX)?;
    let is_random = !random.is_empty() && random.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_random.then(|| root.join(name))
}
