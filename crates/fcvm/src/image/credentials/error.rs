//! What can be wrong with credentials.

use std::{io, path::PathBuf};

use crate::storage::LockError;

/// Credentials could not be read or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum CredentialsError {
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` is more than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("`{path}` is not a file of credentials")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("the entry of `{key}` in `{path}` is not the base64 of `USER:PASSWORD`")]
    Entry { path: PathBuf, key: String },
    #[error("failed to write `{path}`")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("`{path}` names a credential helper `{name}`, which cannot be the name of one")]
    HelperName { path: PathBuf, name: String },
    #[error("failed to run `{program}`")]
    HelperRun { program: String, source: io::Error },
    #[error("`{program} {action}` failed for `{server}`: {said}")]
    HelperFailed { program: String, action: &'static str, server: String, said: String },
    #[error("`{program} get` gave no credentials for `{server}` that can be understood")]
    HelperAnswer { program: String, server: String },
    #[error("no file to keep credentials in: neither HOME nor XDG_RUNTIME_DIR is set")]
    NoFile,
    #[error("not logged in to `{key}`")]
    NotLoggedIn { key: String },
}

impl CredentialsError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Json { path, .. } | Self::Entry { path, .. } => {
                format!("repair or remove `{}`, then `fcvm login` again", path.display())
            }
            Self::HelperRun { program, source } if source.kind() == io::ErrorKind::NotFound => {
                format!(
                    "install `{program}`, or remove it from `credHelpers` and `credsStore`; \
                     with --authfile another file is used"
                )
            }
            Self::HelperName { .. } => {
                "`credHelpers` and `credsStore` take what follows `docker-credential-` in a program's name"
                    .into()
            }
            Self::NotLoggedIn { .. } => {
                "a login that is in Docker's own file ends with `docker logout`".into()
            }
            Self::NoFile => "name one with --authfile or REGISTRY_AUTH_FILE".into(),
            _ => return None,
        })
    }
}
