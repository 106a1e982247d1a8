//! What can go wrong with state files.

use std::{io, path::PathBuf};

use super::{Status, VmName};

/// A VM could not be recorded, found or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The name belongs to another VM.
    #[error("the name `{name}` is in use by VM {id}")]
    NameTaken {
        /// The name.
        name: VmName,
        /// The short id of its owner.
        id: String,
    },
    /// There is no such VM.
    #[error("no VM `{name}`")]
    Unknown {
        /// The name or the beginning of an id.
        name: String,
    },
    /// No VM's fcvm process has this PID.
    #[error("process {pid} has no VM")]
    NoProcess {
        /// The PID.
        pid: i32,
    },
    /// Several ids begin so.
    #[error("`{prefix}` is the beginning of the ids of several VMs: {ids}")]
    Ambiguous {
        /// The beginning.
        prefix: String,
        /// Short ids.
        ids: String,
    },
    /// It cannot be removed while it runs.
    #[error("VM `{name}` is {status}")]
    Alive {
        /// Its name.
        name: VmName,
        /// What it does.
        status: Status,
    },
    /// Something of it could not be removed.
    #[error("failed to remove what is left of VM `{name}`")]
    Remove {
        /// Its name.
        name: VmName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Changes of the record could not be watched.
    #[error("failed to watch `{path}`")]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The log of events could not be read, or what was read not be written.
    #[error("failed to show events of `{path}`")]
    Events {
        /// The log.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A network for it cannot be had.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// The lock could not be taken.
    #[error(transparent)]
    Lock(#[from] crate::storage::LockError),
    /// A file could not be written.
    #[error("failed to write VM state `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory could not be read.
    #[error("failed to list `{path}`")]
    List {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory could not be made.
    #[error("failed to create directory `{path}`")]
    Create {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory for sockets belongs to someone else.
    #[error("runtime directory `{path}` belongs to another user or is open to others")]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The VMs of the data directory are another user's.
    #[error("the VMs in `{path}` belong to user {user}")]
    OtherUser {
        /// The directory of their records.
        path: PathBuf,
        /// The user's number.
        user: u32,
    },
    /// The kernel would not tell about this process, or give random bytes.
    #[error("failed to identify this process")]
    Identify(#[source] io::Error),
}

impl StateError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NameTaken { .. } => Some(
                "choose another --name; `fcvm ls --all` lists the VMs there are, `fcvm rm` removes one"
                    .into(),
            ),
            Self::Unknown { .. } | Self::NoProcess { .. } => {
                Some("`fcvm ls --all` lists the VMs there are".into())
            }
            Self::Ambiguous { .. } => Some("give more of the id, or the name".into()),
            Self::Alive { name, .. } => {
                Some(format!("`fcvm stop {name}` ends it, `fcvm rm --force {name}` kills and removes it"))
            }
            Self::OtherUser { .. } => Some(
                "name a data directory of your own with --data-dir or FCVM_DATA_DIR, or become that user"
                    .into(),
            ),
            Self::Network(error) => error.hint(),
            Self::Foreign { .. } => Some("set FCVM_RUNTIME_DIR to a directory of your own".into()),
            Self::Write { source, .. } | Self::Create { source, .. }
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                Some("free some space, or choose another data directory with --data-dir".into())
            }
            _ => None,
        }
    }
}
