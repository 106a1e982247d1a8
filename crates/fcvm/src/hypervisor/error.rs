//! What can go wrong with a hypervisor.

use std::{io, path::PathBuf};

use super::{
    Virtualization,
    firecracker::{Version, api::ApiError},
};

/// A hypervisor could not be found, chosen or started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HypervisorError {
    /// No program of that name.
    #[error("`{program}` is not installed")]
    NotFound {
        /// The program.
        program: String,
    },
    /// Firecracker is nowhere.
    #[error("Firecracker was not found")]
    NoFirecracker,
    /// What was given as Firecracker is something else.
    #[error("`{program}` is no Firecracker: its `--version` says `{said}`")]
    NoVersion {
        /// The program.
        program: PathBuf,
        /// Its first line, cleaned.
        said: String,
    },
    /// A Firecracker from before what fcvm needs.
    #[error("`{program}` is Firecracker {found}, older than {least}")]
    OldVersion {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: Version,
        /// The first that will do.
        least: Version,
    },
    /// Firecracker needs KVM.
    #[error("Firecracker cannot run here: {}", .obstacle.obstacle().unwrap_or("no KVM"))]
    NoKvm {
        /// What is in its way.
        obstacle: Virtualization,
    },
    /// The kernel's parameters are too long.
    #[error("the kernel's parameters have {length} bytes, and Firecracker takes {limit}")]
    KernelParameters {
        /// In bytes.
        length: usize,
        /// In bytes.
        limit: usize,
    },
    /// Firecracker did not do what it was asked.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The machine runs, and its agent cannot be reached.
    #[error("failed to reach the guest by socket `{path}`")]
    Link {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More than the backend can.
    #[error("{cpus} virtual CPUs are more than the {limit} that {hypervisor} can have")]
    TooManyCpus {
        /// Asked for.
        cpus: u8,
        /// Possible.
        limit: u8,
        /// The backend.
        hypervisor: &'static str,
    },
    /// A socket's path would not fit its address.
    #[error("socket path `{path}` is longer than the 107 bytes a Unix socket may have")]
    SocketPath {
        /// The path.
        path: PathBuf,
    },
    /// A socket could not be made.
    #[error("failed to create socket `{path}`")]
    Socket {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The process could not be started.
    #[error("failed to start `{program}`")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl HypervisorError {
    /// Whether it is what one meets when the hypervisor's process ends: its end tells more.
    pub(crate) fn may_be_its_end(&self) -> bool {
        matches!(self, Self::Link { .. } | Self::Api(ApiError::Connect { .. } | ApiError::Gone { .. }))
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => {
                Some("`fcvm setup --check` lists what is missing and how to get it".into())
            }
            Self::NoFirecracker => Some(
                "`fcvm setup --with-firecracker` downloads it; or name it with --firecracker or FCVM_FIRECRACKER"
                    .into(),
            ),
            Self::NoVersion { .. } => {
                Some("--firecracker, FCVM_FIRECRACKER or PATH name the program `firecracker` of a release".into())
            }
            Self::OldVersion { least, .. } => Some(format!(
                "`fcvm setup --with-firecracker` downloads {least}; or use --hypervisor qemu"
            )),
            Self::NoKvm { obstacle } => Some(obstacle.advice().into()),
            Self::KernelParameters { .. } => Some("shorten --kernel-args".into()),
            Self::Api(error) => error.hint(),
            Self::SocketPath { .. } => Some("set FCVM_RUNTIME_DIR to a shorter directory".into()),
            Self::TooManyCpus { limit, .. } => Some(format!("use --cpus {limit} or fewer")),
            Self::Socket { .. } | Self::Start { .. } | Self::Link { .. } => None,
        }
    }
}
