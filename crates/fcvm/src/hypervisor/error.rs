//! What can go wrong with a hypervisor.

use std::{io, path::PathBuf};

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
    /// Asked for by the user, and not there yet.
    #[error("the Firecracker backend is not part of this version")]
    NoFirecracker,
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
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => {
                Some("`fcvm setup --check` lists what is missing and how to get it".into())
            }
            Self::NoFirecracker => Some("use --hypervisor qemu, or auto".into()),
            Self::SocketPath { .. } => Some("set FCVM_RUNTIME_DIR to a shorter directory".into()),
            Self::TooManyCpus { limit, .. } => Some(format!("use --cpus {limit} or fewer")),
            Self::Socket { .. } | Self::Start { .. } => None,
        }
    }
}
