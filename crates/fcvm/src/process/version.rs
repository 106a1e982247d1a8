//! Which version a program is: asked once for each program, not at each start.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    output::sanitize,
    storage::{AtomicFile, DataDir},
};

/// The version of a program is not known.
#[derive(Debug, thiserror::Error)]
pub enum VersionError {
    /// It cannot be run.
    #[error("failed to run it")]
    Start(#[source] std::io::Error),
    /// It says something else: its first line, cleaned.
    #[error("its `--version` says `{0}`")]
    Other(String),
}

/// A file, as it was when it was asked.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

#[derive(Debug, Serialize, Deserialize)]
struct Known<V> {
    program: Identity,
    version: V,
}

/// The version of a program, of what it says to `--version`; remembered in the data directory's cache, under
/// the name of what it is.
///
/// # Errors
/// Where it is not there, cannot be run, or says nothing of the kind.
pub fn of<V: Serialize + DeserializeOwned>(
    program: &Path,
    name: &str,
    data: &DataDir,
    parse: impl FnOnce(&str) -> Option<V>,
) -> Result<V, VersionError> {
    let metadata = std::fs::metadata(program).map_err(VersionError::Start)?;
    let identity = Identity {
        path: program.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    };
    let cache = data.cache().join(format!("{name}-version.json"));
    let known = std::fs::read(&cache).ok().and_then(|bytes| serde_json::from_slice::<Known<V>>(&bytes).ok());
    if let Some(known) = known.filter(|known| known.program == identity) {
        return Ok(known.version);
    }
    let output =
        Command::new(program).arg("--version").stdin(Stdio::null()).output().map_err(VersionError::Start)?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version =
        parse(&said).ok_or_else(|| VersionError::Other(sanitize(said.lines().next().unwrap_or_default())))?;
    let known = Known { program: identity, version };
    remember(&cache, &known);
    Ok(known.version)
}

fn remember<V: Serialize>(cache: &Path, known: &Known<V>) {
    let written = serde_json::to_vec(known)
        .map_err(std::io::Error::from)
        .and_then(|bytes| AtomicFile::write_volatile(cache, &bytes));
    if let Err(error) = written {
        tracing::debug!(%error, "the version is not remembered");
    }
}
