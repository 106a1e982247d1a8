//! What can be wrong with the configuration of registries.

use std::{io, path::PathBuf};

use crate::image::name::NameError;

/// The configuration of registries cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum RegistriesError {
    #[error("failed to read `{path}`")]
    Read { path: PathBuf, source: io::Error },
    #[error("`{path}` is more than {limit} bytes")]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("`{path}` is not a configuration of registries")]
    Parse { path: PathBuf, source: Box<toml::de::Error> },
    #[error("`{path}` is a configuration of registries in the form of version 1")]
    Version1 { path: PathBuf },
    #[error("a [[registry]] in `{path}` has neither `prefix` nor `location`")]
    Nowhere { path: PathBuf },
    #[error("`{text}` in `{path}` is not the beginning of an image's name")]
    Prefix { path: PathBuf, text: String },
    #[error("`{text}` in `{path}` is not a registry to be searched")]
    Search { path: PathBuf, text: String, source: NameError },
    #[error("`{path}` has an invalid alias for `{name}`")]
    Alias { path: PathBuf, name: String, source: NameError },
    #[error("registry `{prefix}` is blocked by `{path}`")]
    Blocked { prefix: String, path: PathBuf },
    #[error("with the location `{location}` that `{path}` gives for it, `{name}` is no image's name")]
    Location { name: String, location: String, path: PathBuf, source: NameError },
}

impl RegistriesError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                format!("CONTAINERS_REGISTRIES_CONF or its _OVERRIDE names `{}`; unset it", path.display())
            }
            Self::Read { .. } | Self::TooLarge { .. } => return None,
            Self::Version1 { .. } => {
                "write `unqualified-search-registries = [\"registry.example\"]` in place of \
                 [registries.search], and a [[registry]] with `insecure` or `blocked` for each of the others"
                    .into()
            }
            Self::Parse { .. } | Self::Nowhere { .. } => {
                "`man containers-registries.conf` describes the file".into()
            }
            Self::Prefix { .. } => {
                "write it without `https://`, like `registry.example:5000/team` or, as a prefix, `*.example`"
                    .into()
            }
            Self::Search { .. } => "write a host with an optional port, like `registry.example:5000`".into(),
            Self::Alias { .. } => {
                "write `\"name\" = \"registry.example/team/name\"`, both without tag or digest".into()
            }
            Self::Blocked { path, .. } => {
                format!("name the image's place at another registry, or change `{}`", path.display())
            }
            Self::Location { .. } => "a location is a host, or a host and the beginning of a path".into(),
        })
    }
}
