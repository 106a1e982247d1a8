//! Other engines on this machine that have images: Podman and Docker.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{TransportError, docker_daemon::DockerHost};
use crate::{hash::Digest, http::HttpError};

/// How the engines of this user are reached. None is asked before it is needed.
#[derive(Debug, Clone)]
pub struct Engines {
    /// The program; `None` where Podman is not to be asked.
    pub podman: Option<PathBuf>,
    /// Where the Docker engine is, or why that cannot be.
    pub(super) docker: Result<DockerHost, String>,
    /// How long an engine may take for what it knows.
    pub answer: Duration,
    /// How long an engine may be silent while it exports an image: Docker writes all of it to a
    /// directory of its own before it sends the first byte.
    pub export: Duration,
}

/// An image that an engine has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) struct EngineImage {
    /// The digest of its configuration, as a rule.
    pub(in crate::image) id: Digest,
    /// What the engine calls it.
    pub(in crate::image) names: Vec<String>,
    pub(super) format: SaveFormat,
}

/// In which format an image is had as it is: another one would be another image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SaveFormat {
    OciArchive,
    DockerArchive,
}

/// An engine did not give an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum EngineError {
    #[error("`{program}` is not installed")]
    NoPodman { program: PathBuf },
    #[error("failed to run `{program}`")]
    Run { program: PathBuf, source: io::Error },
    #[error("`{program}` failed: {said}")]
    Failed { program: PathBuf, said: String },
    #[error("{engine} did not answer within {} s", limit.as_secs())]
    TimedOut { engine: &'static str, limit: Duration },
    #[error("{engine} said something about `{name}` that is not understood")]
    Answer { engine: &'static str, name: String },
    #[error("{engine} has no image `{name}`")]
    NoImage { engine: &'static str, name: String },
    #[error("environment variable DOCKER_HOST is `{value}`, which fcvm cannot reach")]
    DockerHost { value: String },
    #[error("no Docker engine can be reached at `{host}`")]
    Unreachable { host: String, source: HttpError },
    #[error("the Docker engine stopped sending")]
    Broken { source: HttpError },
    #[error("the Docker engine answered with status {status}: {said}")]
    Status { status: u16, said: String },
    #[error("failed to start what speaks to the Docker engine")]
    Runtime { source: io::Error },
}

impl EngineError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoPodman { .. } => "install Podman, or run the image by its name in a registry; \
                 `containers-storage:` is the storage of this machine's Podman"
                .into(),
            Self::NoImage { engine: "Podman", .. } => {
                "`podman images`, as this user, lists what it has".into()
            }
            Self::NoImage { .. } => "`docker images` lists what it has".into(),
            Self::DockerHost { .. } => "use `unix:///PATH` or `tcp://HOST:PORT`, without TLS".into(),
            Self::Unreachable { .. } => {
                "start the engine, or say where it is with DOCKER_HOST; its socket is open to root and the \
                 group `docker` as a rule"
                    .into()
            }
            Self::TimedOut { engine: "Podman", .. } => "see whether `podman images` works".into(),
            Self::TimedOut { .. } => "see whether `docker images` works".into(),
            _ => return None,
        })
    }
}

impl Default for Engines {
    /// Those of this user.
    fn default() -> Self {
        let user = rustix::process::geteuid().as_raw();
        Self::in_environment(|name| std::env::var_os(name), user)
    }
}

impl Engines {
    /// Those of a user in an environment.
    fn in_environment(variable: impl Fn(&str) -> Option<OsString>, user: u32) -> Self {
        Self {
            podman: Some("podman".into()),
            docker: DockerHost::in_environment(variable, user),
            answer: Duration::from_secs(60),
            export: Duration::from_secs(900),
        }
    }

    /// Only those that are named: a Podman by its program, and a Docker engine as `DOCKER_HOST` has it.
    #[must_use]
    pub fn only(podman: Option<&Path>, docker_host: &str) -> Self {
        let variable = |name: &str| (name == "DOCKER_HOST").then(|| docker_host.into());
        Self { podman: podman.map(ToOwned::to_owned), ..Self::in_environment(variable, 0) }
    }
}

/// A nameless file for what an engine saves: gone whatever happens.
pub(super) fn nameless(cache: &Path) -> Result<File, TransportError> {
    let failed = |source| TransportError::Spool { path: cache.to_owned(), source };
    fs_err::create_dir_all(cache).map_err(failed)?;
    tempfile::tempfile_in(cache).map_err(failed)
}
