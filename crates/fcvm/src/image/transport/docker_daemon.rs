//! Images of a Docker engine, by its HTTP API.
//!
//! <https://docs.docker.com/reference/api/engine/>; Podman's service speaks it too.

use std::{ffi::OsString, fs::File, io::Write as _, path::Path, path::PathBuf};

use reqwest::{Response, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    EngineError, Engines, TransportError, docker_archive,
    engine::{EngineImage, SaveFormat, nameless},
    tar_index::Archive,
};
use crate::{
    http,
    image::{model::DiskSource, spec::MAX_JSON},
    output::sanitize,
};

const DOCKER: &str = "the Docker engine";
const MAX_SAID: usize = 600;
const SYSTEM_SOCKET: &str = "/var/run/docker.sock";

/// Where a Docker engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DockerHost {
    Unix(PathBuf),
    /// `HOST:PORT`
    Tcp(String),
}

/// What the engine says of an image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Inspected {
    id: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
}

impl DockerHost {
    /// The engine that an environment names, or else where one is by default; the value that
    /// cannot be understood.
    pub(super) fn in_environment(
        variable: impl Fn(&str) -> Option<OsString>,
        user: u32,
    ) -> Result<Self, String> {
        if let Some(value) = variable("DOCKER_HOST").filter(|value| !value.is_empty()) {
            let value = value.to_string_lossy().into_owned();
            let tls = variable("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
            return match value.split_once("://") {
                Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
                Some(("tcp" | "http", host)) if !tls && !host.is_empty() => {
                    Ok(Self::Tcp(host.trim_end_matches('/').to_owned()))
                }
                _ => Err(value),
            };
        }
        let system = PathBuf::from(SYSTEM_SOCKET);
        let own = variable("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("docker.sock"));
        Ok(Self::Unix(match own {
            Some(own) if user != 0 && !system.exists() && own.exists() => own,
            _ => system,
        }))
    }

    fn url(&self, path: &str) -> String {
        match self {
            Self::Unix(_) => format!("http://docker{path}"),
            Self::Tcp(host) => format!("http://{host}{path}"),
        }
    }
}

impl std::fmt::Display for DockerHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// A connection to the engine.
struct Client<'a> {
    host: &'a DockerHost,
    engines: &'a Engines,
    http: reqwest::Client,
}

/// The image that the engine means by a name or id.
///
/// # Errors
/// Where the engine cannot be reached, has no such image, or does not answer as it should.
pub(in crate::image) fn find(engines: &Engines, name: &str) -> Result<EngineImage, EngineError> {
    runtime()?.block_on(async {
        let mut response = Client::new(engines)?.get(&format!("/images/{name}/json"), name).await?;
        let answer = || EngineError::Answer { engine: DOCKER, name: name.to_owned() };
        let limit = engines.answer;
        let read = timeout(limit, bounded(&mut response)).await;
        let bytes = read.map_err(|_| EngineError::TimedOut { engine: DOCKER, limit })??;
        let inspected: Inspected =
            serde_json::from_slice(&bytes.ok_or_else(answer)?).map_err(|_| answer())?;
        // Podman's service leaves the algorithm away in some versions.
        let hex = inspected.id.strip_prefix("sha256:").unwrap_or(&inspected.id);
        let id = format!("sha256:{hex}").parse().map_err(|_| answer())?;
        let names = inspected.repo_tags.unwrap_or_default();
        Ok(EngineImage { id, names, format: SaveFormat::DockerArchive })
    })
}

/// An image, saved to a nameless file in `cache`.
///
/// # Errors
/// Where the engine fails, or the image is not what it should be.
pub(in crate::image) fn save(
    engines: &Engines,
    image: &EngineImage,
    cache: &Path,
) -> Result<DiskSource, TransportError> {
    let file = nameless(cache)?;
    let id = image.id.to_string();
    runtime()?.block_on(async {
        let response = Client::new(engines)?.get(&format!("/images/{id}/get"), &id).await?;
        write(response, engines, &file, cache).await
    })?;
    let archive = Archive::of(format!("docker-daemon:{}", image.id.short()).as_ref(), file)?;
    docker_archive::read(&archive, None)
}

async fn write(
    mut response: Response,
    engines: &Engines,
    mut file: &File,
    cache: &Path,
) -> Result<(), TransportError> {
    loop {
        let limit = engines.export;
        let chunk = timeout(limit, response.chunk()).await;
        let chunk = chunk.map_err(|_| EngineError::TimedOut { engine: DOCKER, limit })?;
        let Some(chunk) = chunk.map_err(|error| EngineError::Broken { source: error.into() })? else {
            return Ok(());
        };
        file.write_all(&chunk).map_err(|source| TransportError::Spool { path: cache.to_owned(), source })?;
    }
}

impl<'a> Client<'a> {
    fn new(engines: &'a Engines) -> Result<Self, EngineError> {
        let host =
            engines.docker.as_ref().map_err(|value| EngineError::DockerHost { value: value.clone() })?;
        // No proxy leads to an engine that is named by its address.
        let builder = http::client().no_proxy();
        let builder = match host {
            DockerHost::Unix(path) => builder.unix_socket(path.as_path()),
            DockerHost::Tcp(_) => builder,
        };
        let http = builder
            .build()
            .map_err(|error| EngineError::Unreachable { host: host.to_string(), source: error.into() })?;
        Ok(Self { host, engines, http })
    }

    async fn get(&self, path: &str, name: &str) -> Result<Response, EngineError> {
        let limit = if path.ends_with("/get") { self.engines.export } else { self.engines.answer };
        let sent = timeout(limit, self.http.get(self.host.url(path)).send()).await;
        let sent = sent.map_err(|_| EngineError::TimedOut { engine: DOCKER, limit })?;
        let mut response = sent.map_err(|error| EngineError::Unreachable {
            host: self.host.to_string(),
            source: error.into(),
        })?;
        match response.status() {
            status if status.is_success() => Ok(response),
            StatusCode::NOT_FOUND => Err(EngineError::NoImage { engine: DOCKER, name: name.to_owned() }),
            status => {
                let body = timeout(self.engines.answer, bounded(&mut response)).await;
                let bytes = body.ok().and_then(Result::ok).flatten().unwrap_or_default();
                let said: String = String::from_utf8_lossy(&bytes).trim().chars().take(MAX_SAID).collect();
                Err(EngineError::Status { status: status.as_u16(), said: sanitize(&said) })
            }
        }
    }
}

/// All of a small answer; `None` where it is not small.
async fn bounded(response: &mut Response) -> Result<Option<Vec<u8>>, EngineError> {
    let mut bytes = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|error| EngineError::Broken { source: error.into() })?
    {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > MAX_JSON {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

fn runtime() -> Result<tokio::runtime::Runtime, EngineError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| EngineError::Runtime { source })
}
