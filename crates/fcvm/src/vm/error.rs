//! What can go wrong with a VM.

use std::{io, path::PathBuf, process::ExitStatus};

use fcvm_proto::{FailureKind, PROTOCOL};

use crate::{hypervisor::HypervisorError, network::NetworkError, state::StateError, volume::VolumeError};

/// A VM did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// The scratch disk could not be made.
    #[error("failed to make the VM's disk `{path}`")]
    Scratch {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file that buffers output could not be made.
    #[error("failed to make a file for the container's output in `{path}`")]
    Spool {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Other processes could not be let in.
    #[error("failed to listen on the control socket in `{path}`")]
    Control {
        /// Its directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The container's output could not be written.
    #[error("failed to write the container's output")]
    Output(#[source] io::Error),
    /// The hypervisor could not be started.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// The record could not be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// A volume could not be served.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// There is no network as it was asked for.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Something of this process failed: signals, random bytes.
    #[error("failed to {what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The guest's kernel panicked.
    #[error("guest panicked: {reason}; the last lines of its console:\n{console}")]
    Panicked {
        /// The kernel's words, cleaned.
        reason: String,
        /// Lines, cleaned.
        console: String,
        /// Whether the container ran by then.
        started: bool,
    },
    /// The guest powered off or reset by itself.
    #[error("guest {how} before the container ended; the last lines of its console:\n{console}")]
    Stopped {
        /// `powered off`, …
        how: String,
        /// Lines, cleaned.
        console: String,
    },
    /// The hypervisor ended by itself.
    #[error("`{hypervisor}` died: {status}{why}; its last messages:\n{messages}")]
    HypervisorDied {
        /// Its name.
        hypervisor: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// What that means, in brackets behind a space, where it is known.
        why: String,
        /// Lines, cleaned.
        messages: String,
    },
    /// The agent never said `Hello`.
    #[error("guest did not start within {seconds} s; the last lines of its console:\n{console}")]
    NotResponding {
        /// How long it had.
        seconds: u64,
        /// Lines, cleaned.
        console: String,
    },
    /// The agent speaks another protocol.
    #[error("guest agent {build} speaks protocol {found}, this fcvm speaks {PROTOCOL}")]
    Protocol {
        /// The agent's build.
        build: String,
        /// The agent's protocol.
        found: u16,
    },
    /// The agent broke the protocol.
    #[error("guest agent broke the protocol: {what}")]
    Violation {
        /// In which way.
        what: String,
    },
    /// The agent could not do its job.
    #[error("guest failed: {message}")]
    Guest {
        /// What kind of failure.
        kind: FailureKind,
        /// The agent's words, cleaned.
        message: String,
    },
    /// A guest that goes on from a snapshot is not what it was told to be.
    #[error("the guest cannot go on from the snapshot: {why}")]
    NotRestored {
        /// The agent's words, cleaned.
        why: String,
    },
    /// A machine that was booted to be saved was not.
    #[error("failed to save the prepared VM")]
    NotSaved {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Who serves its memory has ended.
    #[error("the page server {pid} of the VM has ended, and the VM with it")]
    ServerEnded {
        /// The server's process.
        pid: i32,
    },
    /// The user interrupted.
    #[error("interrupted by signal {signal}")]
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
}

impl VmError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Hypervisor(error) => return error.hint(),
            Self::State(error) => return error.hint(),
            Self::Volume(error) => return error.hint(),
            Self::Network(error) => return error.hint(),
            Self::Scratch { source, .. } | Self::Spool { source, .. }
                if source.kind() == io::ErrorKind::StorageFull =>
            {
                "free some space, or choose another data directory with --data-dir"
            }
            Self::Control { source, .. } if source.kind() == io::ErrorKind::InvalidInput => {
                "set FCVM_RUNTIME_DIR to a shorter directory: paths of sockets have 107 bytes at most"
            }
            Self::Panicked { .. } | Self::NotResponding { .. } => {
                "look at --kernel and --kernel-args; RUST_LOG=console=debug shows the whole console"
            }
            Self::Protocol { .. } => "run `fcvm setup`: it puts this version's agent into the guest",
            Self::Guest { kind: FailureKind::Disk, .. } => {
                "a disk may be damaged: `fcvm setup --force` makes the base disk again, `fcvm image rm` removes an image's"
            }
            Self::Guest { kind: FailureKind::Volume, .. } => {
                "a kernel for volumes has FUSE (CONFIG_FUSE_FS): see --kernel"
            }
            Self::Guest { kind: FailureKind::Base, .. } => {
                "the plan's package list lacks podman: see `fcvm setup --generate-config`"
            }
            Self::ServerEnded { .. } => {
                "`fcvm snapshot serve` has to run as long as its clones; `fcvm snapshot run --snapshot` needs none"
            }
            _ => return None,
        };
        Some(text.into())
    }

    /// Whether a second attempt may do better: the guest never got as far as the container.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::NotResponding { .. } | Self::Panicked { started: false, .. })
    }
}
