//! From an image's name to the places that may have it.

use std::path::PathBuf;

use serde::Deserialize;

use super::{Endpoint, RegistriesError, Security};
use crate::image::{FullName, ImageName, Reference, name::NameError};

const DOCKER_HUB: &str = "docker.io";
/// Where Docker Hub's registry is; `docker.io` itself is a web site.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// A `[[registry]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registry {
    /// The beginning of the names it is about, or `*.` and the end of their hosts.
    pub(super) prefix: String,
    /// What takes the prefix's place; nothing where it stays.
    pub(super) location: Option<String>,
    pub(super) insecure: Option<bool>,
    pub(super) blocked: bool,
    pub(super) mirrors: Vec<Mirror>,
    /// The file that says so.
    pub(super) file: PathBuf,
}

/// A `[[registry.mirror]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) location: String,
    pub(super) insecure: Option<bool>,
    pub(super) pull_from: PullFrom,
}

/// Which names a mirror is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PullFrom {
    #[default]
    #[serde(alias = "")]
    All,
    DigestOnly,
    TagOnly,
}

impl PullFrom {
    fn applies(self, reference: &Reference) -> bool {
        match (self, reference) {
            (Self::All, _)
            | (Self::DigestOnly, Reference::Digest(_))
            | (Self::TagOnly, Reference::Tag(_)) => true,
            (Self::DigestOnly, Reference::Tag(_)) | (Self::TagOnly, Reference::Digest(_)) => false,
        }
    }
}

/// The registry with the longest prefix of the name.
pub(super) fn registry_of<'a>(registries: &'a [Registry], name: &FullName) -> Option<&'a Registry> {
    let text = name.to_string();
    registries
        .iter()
        .filter(|registry| after_prefix(&text, &registry.prefix).is_some())
        .max_by_key(|registry| registry.prefix.len())
}

/// The places of a name, mirrors first.
pub(super) fn endpoints(registries: &[Registry], name: &FullName) -> Result<Vec<Endpoint>, RegistriesError> {
    let Some(registry) = registry_of(registries, name) else {
        return Ok(vec![endpoint(name.registry(), name.repository(), None)]);
    };
    if registry.blocked {
        return Err(RegistriesError::Blocked {
            prefix: registry.prefix.clone(),
            path: registry.file.clone(),
        });
    }
    let mut endpoints = Vec::new();
    for mirror in registry.mirrors.iter().filter(|mirror| mirror.pull_from.applies(name.reference())) {
        endpoints.push(moved(registry, name, &mirror.location, mirror.insecure)?);
    }
    endpoints.push(match &registry.location {
        Some(location) => moved(registry, name, location, registry.insecure)?,
        None => endpoint(name.registry(), name.repository(), registry.insecure),
    });
    Ok(endpoints)
}

/// A registry itself.
pub(super) fn endpoint_of(registries: &[Registry], registry: &str) -> Endpoint {
    let any_name = format!("{registry}/");
    let tables = registries.iter().filter(|table| after_prefix(&any_name, &table.prefix) == Some("/"));
    let table = tables.max_by_key(|table| table.prefix.len());
    endpoint(registry, "", table.and_then(|table| table.insecure))
}

/// What follows a prefix in a name, where the name has it.
fn after_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    if let Some(domain) = prefix.strip_prefix('*').filter(|domain| domain.starts_with('.')) {
        let (host, _) = name.split_once('/')?;
        let ends = host.char_indices().filter(|&(at, _)| name[at..].starts_with(domain));
        return ends.map(|(at, _)| at + domain.len()).find_map(|end| match host.get(end..) {
            // Whatever the port is, as other tools do; it goes with the host.
            Some(port) => (port.is_empty() || port.starts_with(':')).then(|| &name[host.len()..]),
            None => name.get(end..).filter(|rest| rest.is_empty() || rest.starts_with([':', '/', '@'])),
        });
    }
    let rest = name.strip_prefix(prefix)?;
    // The colon after a host is a port's: another registry.
    let ends = if prefix.contains('/') { &[':', '/', '@'][..] } else { &['/'] };
    (rest.is_empty() || rest.starts_with(ends)).then_some(rest)
}

/// The place of a name whose prefix is replaced by a location.
fn moved(
    registry: &Registry,
    name: &FullName,
    location: &str,
    insecure: Option<bool>,
) -> Result<Endpoint, RegistriesError> {
    let text = name.to_string();
    let rest = after_prefix(&text, &registry.prefix).unwrap_or_default();
    let failed = |source| RegistriesError::Location {
        name: name.to_string(),
        location: location.to_owned(),
        path: registry.file.clone(),
        source,
    };
    let place: ImageName = format!("{location}{rest}").parse().map_err(failed)?;
    let host = place.registry().ok_or_else(|| failed(NameError::Registry))?;
    let place = place.at(host);
    Ok(endpoint(place.registry(), place.repository(), insecure))
}

fn endpoint(registry: &str, repository: &str, insecure: Option<bool>) -> Endpoint {
    let security = match insecure {
        Some(true) => Security::Insecure,
        Some(false) => Security::Verified,
        None if is_loopback(registry) => Security::Insecure,
        None => Security::Verified,
    };
    let registry = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
    Endpoint { registry: registry.to_owned(), repository: repository.to_owned(), security }
}

/// Whether a registry is on this machine, where there is nobody in between.
fn is_loopback(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
