//! Where a copy goes: Podman's rules.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{CopyError, Overwrite};

/// Where a thing goes that is called `name` and is to be at `wanted`. `contents`: not it but what
/// is in it.
///
/// # Errors
/// Where there is no directory for it.
pub(super) fn target(wanted: &Path, name: &Path, contents: bool) -> Result<PathBuf, CopyError> {
    let read = |source| CopyError::Read { path: wanted.to_owned(), source };
    match fs::metadata(wanted) {
        Ok(there) if there.is_dir() && !contents => Ok(wanted.join(name)),
        Ok(_) => Ok(wanted.to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = wanted.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            // Told as what is missing.
            fs::metadata(parent).map_err(|source| CopyError::Read { path: parent.to_owned(), source })?;
            Ok(wanted.to_owned())
        }
        Err(error) => Err(read(error)),
    }
}

/// Moves a thing; directories that are there already get what is in it, and files are replaced.
/// Links that are there are not followed.
///
/// # Errors
/// Where something of another kind is in the way, or it cannot be moved.
pub(super) fn settle(from: &Path, to: &Path, overwrite: Overwrite) -> Result<(), CopyError> {
    let write = |source| CopyError::Write { path: to.to_owned(), source };
    let is_directory = fs::symlink_metadata(from).map_err(write)?.is_dir();
    let there = match fs::symlink_metadata(to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        there => Some(there.map_err(write)?.is_dir()),
    };
    match there {
        Some(true) if is_directory => {
            for entry in fs::read_dir(from).map_err(write)? {
                let entry = entry.map_err(write)?;
                settle(&entry.path(), &to.join(entry.file_name()), overwrite)?;
            }
            return Ok(());
        }
        Some(directory) if directory != is_directory => {
            if overwrite == Overwrite::SameKind {
                let what = if directory { "a directory" } else { "no directory" };
                return Err(CopyError::Kind { path: to.to_owned(), what });
            }
            if directory { fs::remove_dir_all(to) } else { fs::remove_file(to) }.map_err(write)?;
        }
        _ => {}
    }
    fs::rename(from, to).map_err(write)
}
