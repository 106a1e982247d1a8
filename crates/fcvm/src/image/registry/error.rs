//! What a registry can do to a pull.

use std::{io, path::PathBuf, time::Duration};

use crate::{hash::Digest, http::HttpError};

/// A registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum RegistryError {
    #[error("failed to start the threads that speak to registries")]
    Runtime { source: io::Error },
    #[error("failed to read certificates in `{path}`")]
    Certificates { path: PathBuf, source: io::Error },
    #[error("`{path}` is no certificate")]
    Certificate { path: PathBuf, source: HttpError },
    #[error("failed to prepare connections to registry `{registry}`")]
    Prepare { registry: String, source: HttpError },
    #[error("registry `{registry}` cannot be reached")]
    Unreachable { registry: String, source: HttpError },
    #[error("registry `{registry}` sent nothing for too long")]
    Stalled { registry: String, source: HttpError },
    #[error("the connection to registry `{registry}` broke")]
    Broken { registry: String, source: HttpError },
    #[error("registry `{registry}` stopped at byte {found} of {expected} of {digest}")]
    CutOff { registry: String, digest: Digest, found: u64, expected: u64 },
    #[error("registry `{registry}` leads elsewhere in a way that is not followed")]
    Redirect { registry: String, source: HttpError },
    #[error("registry `{registry}` wants a login for `{repository}`")]
    LoginNeeded { registry: String, repository: String },
    #[error("registry `{registry}` does not accept this login for `{repository}`{message}")]
    LoginRefused { registry: String, repository: String, message: String },
    #[error("registry `{registry}` denies access to `{repository}`{message}")]
    Denied { registry: String, repository: String, message: String },
    #[error("registry `{registry}` has no `{name}`")]
    NotFound { registry: String, name: String },
    #[error("registry `{registry}` allows no more requests for now")]
    TooMany { registry: String, retry_after: Option<Duration> },
    #[error("registry `{registry}` answered with status {status}{message}")]
    Status { registry: String, status: u16, message: String, retry_after: Option<Duration> },
    #[error("registry `{registry}` asks for a login in a way that is not understood")]
    Challenge { registry: String },
    #[error("the token service of registry `{registry}` sent no token")]
    NoToken { registry: String },
    #[error("registry `{registry}` sent more than {limit} bytes for `{name}`")]
    TooLarge { registry: String, name: String, limit: u64 },
    #[error("registry `{registry}` sent {digest} with {found} bytes, not {expected}")]
    Size { registry: String, digest: Digest, found: u64, expected: u64 },
    #[error("registry `{registry}` sent something with digest {found} for {expected}")]
    Digest { registry: String, found: Digest, expected: Digest },
    #[error("what registry `{registry}` has as `{name}` is no image manifest")]
    Manifest { registry: String, name: String, source: serde_json::Error },
    #[error("what registry `{registry}` has as `{name}` is of type `{media_type}`, not a container image")]
    MediaType { registry: String, name: String, media_type: String },
}

impl RegistryError {
    /// Whether the same may succeed if it is tried again.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Stalled { .. }
            | Self::Broken { .. }
            | Self::CutOff { .. }
            | Self::TooMany { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 500..),
            _ => false,
        }
    }

    /// How long the registry asks us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether another registry may have what this one does not give.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(
            self,
            Self::NotFound { .. } | Self::Denied { .. } | Self::LoginNeeded { .. } | Self::Unreachable { .. }
        )
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Certificates { .. } | Self::Certificate { .. } => {
                "a directory of certificates holds `*.crt` of authorities, and `*.cert` with `*.key` of this \
                 client, in PEM form"
                    .into()
            }
            Self::Unreachable { registry, source } if source.is_certificate() => format!(
                "put the certificate of its authority as `ca.crt` into /etc/containers/certs.d/{registry}/, \
                 or give the directory with --cert-dir"
            ),
            Self::Unreachable { .. } => {
                "check the name and the network; proxies are taken from HTTPS_PROXY, HTTP_PROXY and NO_PROXY, \
                 registries without https must be marked `insecure` in registries.conf"
                    .into()
            }
            Self::Stalled { .. } | Self::Broken { .. } | Self::CutOff { .. } => {
                "run it again: it goes on where it stopped".into()
            }
            Self::LoginNeeded { registry, .. } => {
                format!("check the name; if the image is private, run `fcvm login {registry}` first")
            }
            Self::LoginRefused { registry, .. } => {
                format!("check the credentials: `fcvm login {registry}` replaces them")
            }
            Self::Denied { registry, .. } => format!(
                "check the name: some registries deny what they do not have; \
                 if the image is private, run `fcvm login {registry}` first"
            ),
            Self::NotFound { .. } => "check the name and the tag".into(),
            Self::TooMany { retry_after: Some(pause), .. } => {
                format!("wait {} s; users who log in may be allowed more", pause.as_secs())
            }
            Self::TooMany { retry_after: None, .. } => {
                "wait a while; users who log in may be allowed more".into()
            }
            Self::Status { status: 500.., .. } => "the trouble is the registry's: try again later".into(),
            Self::TooLarge { .. } | Self::Size { .. } | Self::Digest { .. } => {
                "nothing of it was kept; something between here and the registry, or the registry itself, \
                 changes what it sends"
                    .into()
            }
            _ => return None,
        })
    }
}
