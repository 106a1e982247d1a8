//! `--cidfile` and `--pidfile`.

use std::{
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf, absolute},
};

use crate::cli::podman::Run;

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum IdFileError {
    /// A file with an id stays that of the VM it names.
    #[error("the file `{path}` for the VM's id exists")]
    Exists { path: PathBuf },
    #[error("failed to write `{path}`")]
    Write { path: PathBuf, source: io::Error },
}

/// The files written. Dropped before [`keep`](Self::keep), they are removed.
#[derive(Debug, Default)]
pub(super) struct IdFiles {
    written: Vec<PathBuf>,
}

impl IdFiles {
    /// Refuses what cannot be written, before anything is done.
    pub(super) fn check(arguments: &Run) -> Result<(), IdFileError> {
        match &arguments.cidfile {
            Some(path) if path.exists() => Err(IdFileError::Exists { path: path.clone() }),
            _ => Ok(()),
        }
    }

    /// Writes the id and this process's number where they are wanted.
    pub(super) fn write(arguments: &Run, id: &str) -> Result<Self, IdFileError> {
        let mut files = Self::default();
        if let Some(path) = &arguments.cidfile {
            let file = File::create_new(path).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists => IdFileError::Exists { path: path.clone() },
                _ => IdFileError::Write { path: path.clone(), source },
            });
            files.add(path, file?, id)?;
        }
        if let Some(path) = &arguments.pidfile {
            let file = File::create(path).map_err(|source| IdFileError::Write { path: path.clone(), source });
            files.add(path, file?, &std::process::id().to_string())?;
        }
        Ok(files)
    }

    /// Leaves them where they are.
    pub(super) fn keep(mut self) {
        self.written.clear();
    }

    fn add(&mut self, path: &Path, mut file: File, text: &str) -> Result<(), IdFileError> {
        let error = |source| IdFileError::Write { path: path.to_owned(), source };
        // The directory changes once the VM runs in the background.
        self.written.push(absolute(path).map_err(error)?);
        file.write_all(text.as_bytes()).map_err(error)
    }
}

impl Drop for IdFiles {
    fn drop(&mut self) {
        for path in &self.written {
            if let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(path = %path.display(), %error, "it stays");
            }
        }
    }
}
