//! Names of images, as written and in full, and ids.
//!
//! The grammar is that of <https://github.com/distribution/reference>: a
//! registry is told from the first part of a path by its dot, its port, or by
//! being `localhost`.

mod error;
mod id;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

pub use self::{error::NameError, id::IdPrefix};
use crate::hash::Digest;

const DOCKER_HUB: &str = "docker.io";
const LOCALHOST: &str = "localhost";
const LATEST: &str = "latest";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;

/// A name as the user wrote it: the registry and the tag may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    registry: Option<String>,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A name that says everything: `docker.io/library/alpine:latest`, or with
/// `@sha256:...` in place of the tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FullName {
    registry: String,
    repository: String,
    reference: Reference,
}

/// Which of a repository's images.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// The one that has the tag now.
    Tag(String),
    /// The one with that digest, of its manifest or of an index.
    Digest(Digest),
}

/// How a name without a registry is completed, as `registries.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortNames {
    /// Repositories for names: `fedora` is `registry.example/fedora`.
    pub aliases: BTreeMap<String, ImageName>,
    /// Registries that may have it, best first.
    pub search: Vec<String>,
}

impl Default for ShortNames {
    fn default() -> Self {
        Self { aliases: BTreeMap::new(), search: vec![DOCKER_HUB.into()] }
    }
}

impl ImageName {
    /// The digest, where one was written.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The registry, where one was written.
    #[must_use]
    pub fn registry(&self) -> Option<&str> {
        self.registry.as_deref()
    }

    /// Whether a tag or digest was written.
    #[must_use]
    pub fn has_reference(&self) -> bool {
        self.tag.is_some() || self.digest.is_some()
    }

    /// What it may mean, best first: a name without registry is a local image,
    /// then its alias or else one of the registries to be searched. Where it has both a tag and a
    /// digest, the digest counts.
    #[must_use]
    pub fn candidates(&self, short_names: &ShortNames) -> Vec<FullName> {
        let mut candidates = vec![self.at(LOCALHOST)];
        if self.registry.is_some() {
            return candidates;
        }
        match short_names.aliases.get(&self.repository) {
            Some(alias) => {
                let of_alias = alias.at(DOCKER_HUB);
                candidates.push(FullName { reference: self.reference(), ..of_alias });
            }
            None => candidates.extend(short_names.search.iter().map(|registry| self.at(registry))),
        }
        candidates
    }

    /// The full name; one without a registry is of the one given.
    #[must_use]
    pub fn at(&self, registry: &str) -> FullName {
        let registry = match self.registry.as_deref().unwrap_or(registry) {
            "index.docker.io" => DOCKER_HUB,
            registry => registry,
        };
        // Docker Hub keeps its official images there.
        let official = registry == DOCKER_HUB && !self.repository.contains('/');
        let prefix = if official { "library/" } else { "" };
        FullName {
            registry: registry.to_owned(),
            repository: format!("{prefix}{}", self.repository),
            reference: self.reference(),
        }
    }

    /// The name as Docker takes it.
    #[must_use]
    pub fn of_docker(&self) -> FullName {
        self.at(DOCKER_HUB)
    }

    fn reference(&self) -> Reference {
        match self.digest {
            Some(digest) => Reference::Digest(digest),
            None => Reference::Tag(self.tag.clone().unwrap_or_else(|| LATEST.into())),
        }
    }

    /// The name of an image made here: `hello` is `localhost/hello:latest`.
    ///
    /// # Errors
    /// Where it has a digest, which is not chosen but computed.
    pub fn local(&self) -> Result<FullName, NameError> {
        if self.digest.is_some() {
            return Err(NameError::Partial);
        }
        Ok(self.at(LOCALHOST))
    }

    /// The name in full, where registry and tag or digest were written.
    #[must_use]
    pub fn full(&self) -> Option<FullName> {
        let said = self.registry.is_some() && self.has_reference();
        said.then(|| self.at(LOCALHOST))
    }

    /// Where the name may also be the beginning of an id: that.
    #[must_use]
    pub fn as_id(&self) -> Option<IdPrefix> {
        let bare = self.registry.is_none() && self.tag.is_none() && self.digest.is_none();
        IdPrefix::parse(&self.repository).filter(|_| bare)
    }
}

impl FullName {
    /// The registry, with its port where it has one.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Which of the repository's images.
    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// The name of one image of the repository, whatever tags it has.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { reference: Reference::Digest(digest), ..self.clone() }
    }

    /// Whether the image is of this machine alone.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.registry == LOCALHOST
    }

    /// Whether both are of one repository.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.registry == other.registry && self.repository == other.repository
    }
}

impl fmt::Display for Reference {
    /// With the separator before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl FromStr for ImageName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| NameError::Digest)?)),
            None => (text, None),
        };
        // A colon before the last slash is a port's.
        let last = rest.rfind('/').map_or(0, |slash| slash + 1);
        let (path, tag) = match rest[last..].find(':') {
            Some(colon) => (&rest[..last + colon], Some(&rest[last + colon + 1..])),
            None => (rest, None),
        };
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if is_registry(first) => (Some(first), rest),
            _ => (None, path),
        };
        if let Some(registry) = registry {
            check_registry(registry)?;
        }
        check_repository(repository)?;
        if text == repository && IdPrefix::parse_certain(text).is_some() {
            return Err(NameError::Id);
        }
        Ok(Self {
            registry: registry.map(ToOwned::to_owned),
            repository: repository.to_owned(),
            tag: tag.map(ToOwned::to_owned),
            digest,
        })
    }
}

fn is_registry(first: &str) -> bool {
    first == LOCALHOST || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// # Errors
/// Where it is not a host with an optional port.
pub(super) fn check_registry(registry: &str) -> Result<(), NameError> {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let label = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host_is_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.len() <= MAX_REPOSITORY && host.split('.').all(label),
    };
    let port_is_valid = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if host_is_valid && port_is_valid { Ok(()) } else { Err(NameError::Registry) }
}

fn check_repository(repository: &str) -> Result<(), NameError> {
    if repository.is_empty() {
        return Err(NameError::Empty);
    }
    if repository.len() > MAX_REPOSITORY {
        return Err(NameError::Long);
    }
    if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(NameError::Uppercase);
    }
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !repository.bytes().all(|byte| word(byte) || b"._-/".contains(&byte)) {
        return Err(NameError::Characters);
    }
    for part in repository.split('/') {
        let separators = part.split(|c: char| c.is_ascii_alphanumeric()).filter(|text| !text.is_empty());
        let allowed = |text: &str| matches!(text, "." | "_" | "__") || text.bytes().all(|byte| byte == b'-');
        let edges = part.bytes().next().is_some_and(word) && part.bytes().last().is_some_and(word);
        if !edges || !separators.into_iter().all(allowed) {
            return Err(NameError::Separator);
        }
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), NameError> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let valid = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-');
    if valid { Ok(()) } else { Err(NameError::Tag) }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(registry) = &self.registry {
            write!(f, "{registry}/")?;
        }
        f.write_str(&self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for FullName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<ImageName>()?.full().ok_or(NameError::Partial)
    }
}

impl TryFrom<String> for FullName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<FullName> for String {
    fn from(name: FullName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for FullName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.reference)
    }
}
