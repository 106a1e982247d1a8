//! What can go wrong in set-up.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitStatus,
};

use super::{modules::ModulesError, plan::InvalidPlan, preflight::Report, vmlinux::VmlinuxError};
use crate::{hash::Digest, http::HttpError, image::layer::LayerError, storage::LockError};

/// What is attempted with a kernel that the user named.
pub(super) const FIND_KERNEL: &str = "find kernel";

/// Set-up failed, or was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// `fcvm setup` did not run yet, or not for this plan.
    #[error("fcvm is not set up: `{path}` is missing")]
    Missing {
        /// The first asset that is not there.
        path: PathBuf,
    },
    /// A file is not what set-up made.
    #[error("`{path}` is damaged: it is not the file that `fcvm setup` made")]
    Corrupt {
        /// The file.
        path: PathBuf,
    },
    /// The host lacks something.
    #[error("this machine lacks what fcvm needs:\n{}", .report.missing())]
    Preflight {
        /// Everything that was looked at.
        report: Box<Report>,
    },
    /// The plan file cannot be read.
    #[error("failed to read plan `{path}`")]
    ReadPlan {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The plan file is no plan.
    #[error("failed to parse plan `{path}`")]
    ParsePlan {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value in the plan file is wrong.
    #[error("plan `{path}` is not valid")]
    InvalidPlan {
        /// The file.
        path: PathBuf,
        /// Which value.
        #[source]
        source: InvalidPlan,
    },
    /// The plan file to be written exists.
    #[error("plan `{path}` exists already")]
    PlanExists {
        /// The file.
        path: PathBuf,
    },
    /// There is no agent.
    #[error("the guest agent `fc-agent` was not found")]
    NoAgent {
        /// Where it was looked for.
        looked: Vec<PathBuf>,
    },
    /// A guest cannot run the agent.
    #[error("`{path}` cannot be the guest agent: {why}")]
    UnfitAgent {
        /// The file.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// A program cannot be run.
    #[error("failed to run `{program}`")]
    Start {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program failed.
    #[error("`{program}` failed ({status}){}", tail(.messages))]
    Tool {
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines it wrote.
        messages: Vec<String>,
    },
    /// What a program writes cannot be read.
    #[error("failed to read the archive from `{program}`")]
    Stream {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A package has no kernel, or too many.
    #[error("package `{package}` has {what}")]
    KernelPackage {
        /// Its name.
        package: String,
        /// What is wrong.
        what: &'static str,
    },
    /// A kernel cannot be used.
    #[error("kernel `{name}` cannot be booted")]
    Kernel {
        /// File, URL or package.
        name: String,
        /// Why.
        #[source]
        source: VmlinuxError,
    },
    /// Modules cannot be had.
    #[error("failed to collect the kernel modules of the plan")]
    Modules(#[from] ModulesError),
    /// A download failed.
    #[error("failed to download `{url}`")]
    Download {
        /// From where.
        url: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// Firecracker was asked for, and cannot be had.
    #[error("failed to install Firecracker")]
    Firecracker {
        /// Why.
        #[source]
        source: Box<SetupError>,
    },
    /// The plan names no Firecracker for this architecture.
    #[error("the plan has no `firecracker.{arch}`")]
    NoRelease {
        /// The architecture.
        arch: &'static str,
    },
    /// A download is not what the plan says.
    #[error("`{url}` is {found}, not {expected} as the plan says")]
    WrongDigest {
        /// From where.
        url: String,
        /// What came.
        found: Digest,
        /// What should have.
        expected: Digest,
    },
    /// A file is larger than what it is to be.
    #[error("`{name}` is too large for what it is to be")]
    TooLarge {
        /// File or URL.
        name: String,
    },
    /// The base disk cannot be written.
    #[error("failed to write base disk `{path}`")]
    BaseDisk {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
    /// A file operation failed.
    #[error("failed to {action} `{path}`")]
    Io {
        /// What was done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A lock could not be taken.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl SetupError {
    pub(super) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether `fcvm setup` would mend it.
    #[must_use]
    pub fn is_mended_by_setup(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Corrupt { .. })
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { .. } => Some(
                "run `fcvm setup` (about 1 minute, downloads about 100 MB, keeps about 230 MB), or add --setup"
                    .into(),
            ),
            Self::Corrupt { .. } => Some("run `fcvm setup`, which makes it again".into()),
            Self::Preflight { report } => report.fix(),
            Self::NoAgent { looked } => {
                let looked: Vec<_> = looked.iter().map(|path| path.display().to_string()).collect();
                Some(format!(
                    "looked for {}; name it with --agent or FCVM_AGENT",
                    looked.join(" and ")
                ))
            }
            Self::UnfitAgent { .. } => Some(
                "build it statically for this machine, for instance with the musl target of Rust".into(),
            ),
            Self::Firecracker { .. } => Some(super::firecracker::BY_HAND.into()),
            Self::PlanExists { .. } => Some("--force overwrites it".into()),
            Self::Io { action: FIND_KERNEL, .. } => {
                Some("name a kernel that exists, or none for the one that `fcvm setup` installs".into())
            }
            Self::Modules(ModulesError::Unknown { .. }) => {
                Some("list it in `modules.optional` of the plan if guests can do without it".into())
            }
            Self::Tool { program, .. } if program == "mmdebstrap" => {
                Some("RUST_LOG=mmdebstrap=debug shows all of its messages".into())
            }
            _ => None,
        }
    }
}

fn tail(messages: &[String]) -> String {
    messages.iter().map(|line| format!("\n    {line}")).collect()
}
