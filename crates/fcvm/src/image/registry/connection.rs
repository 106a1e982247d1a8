//! Connections to a registry: TLS, proxies, redirects.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use reqwest::{Certificate, ClientBuilder, Identity, redirect};

use super::{Patience, RegistryError};
use crate::{
    http,
    image::registries::{Endpoint, Security},
};

const MAX_REDIRECTS: usize = 10;
/// Certificates are small; what is larger is something else.
const MAX_PEM: u64 = 1 << 20;

/// How certificates are checked.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// Whether the registry's certificate must be valid; `None` where `registries.conf` decides.
    pub verify: Option<bool>,
    /// Certificates for this registry; `None` for those of `certs.d`.
    pub cert_dir: Option<PathBuf>,
}

impl TlsOptions {
    /// How an endpoint is spoken to.
    pub(super) fn security(&self, endpoint: &Endpoint) -> Security {
        match self.verify {
            Some(true) => Security::Verified,
            Some(false) => Security::Insecure,
            None => endpoint.security,
        }
    }
}

/// A client for one registry.
pub(super) fn connect(
    endpoint: &Endpoint,
    options: &TlsOptions,
    patience: &Patience,
) -> Result<reqwest::Client, RegistryError> {
    let builder = http::client()
        .connect_timeout(patience.connect)
        .read_timeout(patience.silence)
        .redirect(redirect::Policy::custom(follow));
    let builder = if is_this_machine(&endpoint.registry) { builder.no_proxy() } else { builder };
    let builder = match options.security(endpoint) {
        Security::Verified => builder,
        Security::Insecure => builder.tls_danger_accept_invalid_certs(true),
    };
    let builder = match &options.cert_dir {
        Some(directory) => with_certificates(builder, directory)?,
        None => certificate_directories(&endpoint.registry)
            .iter()
            .try_fold(builder, |builder, directory| with_certificates(builder, directory))?,
    };
    builder
        .build()
        .map_err(|error| RegistryError::Prepare { registry: endpoint.registry.clone(), source: error.into() })
}

/// Proxies are for what is elsewhere, whatever the environment says: as in Go's programs.
fn is_this_machine(registry: &str) -> bool {
    let host = match registry.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => registry,
    };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Blobs often lie elsewhere. Credentials are not sent there: reqwest drops them where the host changes.
fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let secure = attempt.previous().last().is_some_and(|from| from.scheme() == "https");
    if secure && attempt.url().scheme() != "https" {
        return attempt.error("from https to plain http");
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("too many times");
    }
    attempt.follow()
}

/// Where the certificates of a registry may be, as for Podman and Docker.
fn certificate_directories(registry: &str) -> Vec<PathBuf> {
    let user = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")));
    let user = user.map(|config| config.join("containers/certs.d"));
    user.into_iter()
        .chain(["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from))
        .map(|directory| directory.join(registry))
        .filter(|directory| directory.is_dir())
        .collect()
}

/// Trusts the authorities of a directory (`*.crt`), and shows its certificate (`*.cert`, `*.key`).
fn with_certificates(builder: ClientBuilder, directory: &Path) -> Result<ClientBuilder, RegistryError> {
    let failed = |source| RegistryError::Certificates { path: directory.to_owned(), source };
    let mut paths = fs::read_dir(directory)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>())
        .map_err(failed)?;
    paths.sort_unstable();
    paths.into_iter().try_fold(builder, |builder, path| {
        let certificate =
            |error: reqwest::Error| RegistryError::Certificate { path: path.clone(), source: error.into() };
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {
                let bundle = Certificate::from_pem_bundle(&read(&path)?).map_err(certificate)?;
                Ok(builder.tls_certs_merge(bundle))
            }
            Some("cert") => {
                let pair = [read(&path)?, read(&path.with_extension("key"))?].concat();
                Ok(builder.identity(Identity::from_pem(&pair).map_err(certificate)?))
            }
            _ => Ok(builder),
        }
    })
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_PEM).read_to_end(&mut bytes))
        .map_err(|source| RegistryError::Certificates { path: path.to_owned(), source })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_not_for_this_machine() {
        for here in ["localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:80", "[::1]:5000", "[::1]"] {
            assert!(is_this_machine(here), "{here}");
        }
        for elsewhere in ["localhost.example", "10.0.0.1:5000", "registry.example", "[fe80::1]:5000"] {
            assert!(!is_this_machine(elsewhere), "{elsewhere}");
        }
    }
}
