//! What can be wrong with the configuration of registries.

use std::{io, path::PathBuf};

/// The configuration of registries cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum RegistriesError {
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
}

impl RegistriesError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        None
    }
}
