//! What can be wrong with snapshots.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
};

use fcvm_proto::PROTOCOL;

use super::{FORMAT, SnapshotTag};
use crate::state::VmName;

const FETCH_AGAIN: &str = "export the snapshot again, or fetch the file again";

/// A snapshot cannot be had, made, or used here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say what the fields are")]
pub enum SnapshotError {
    #[error("no snapshot `{tag}`")]
    Unknown { tag: SnapshotTag },
    #[error("the snapshot without a name in `{name}` is gone: who asked for it has ended")]
    Gone { name: String },
    #[error("snapshot `{tag}` exists")]
    Exists { tag: SnapshotTag },
    #[error("snapshot `{tag}` is in use{}", by(vms))]
    InUse { tag: SnapshotTag, vms: Vec<VmName> },
    #[error("failed to {action} `{path}`")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no `{path}`")]
    NoManifest { path: PathBuf },
    #[error("`{path}` is longer than what fcvm writes")]
    LongManifest { path: PathBuf },
    #[error("`{path}` is not what fcvm writes")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("`{path}` has format {found}, and this fcvm knows format {FORMAT}")]
    Format { path: PathBuf, found: u32 },
    #[error("`{path}` cannot be of a snapshot: {what}")]
    Invalid { path: PathBuf, what: String },
    #[error("snapshot `{tag}` needs a host with {what} `{needed}`, and this one has `{found}`")]
    Host { tag: SnapshotTag, what: &'static str, needed: String, found: String },
    #[error("snapshot `{tag}` was made by {needed}, and {found} cannot load it")]
    Engine { tag: SnapshotTag, needed: String, found: String },
    #[error("snapshot `{tag}` has an agent that speaks protocol {found}, and this fcvm speaks {PROTOCOL}")]
    Protocol { tag: SnapshotTag, found: u16 },
    #[error("snapshot `{tag}` is of a disk alone: there is no memory to share")]
    NoMemory { tag: SnapshotTag },
    #[error("the file system of `{path}` has no reflinks: files there share nothing")]
    NotShared { path: PathBuf },
    #[error("snapshot `{tag}` is damaged: its file `{file}` is missing")]
    Missing { tag: SnapshotTag, file: String },
    #[error("snapshot `{tag}` is damaged: its file `{file}` has {found} bytes, and had {recorded}")]
    Size { tag: SnapshotTag, file: String, found: u64, recorded: u64 },
    #[error("snapshot `{tag}` is damaged: the content of its file `{file}` is not what it was")]
    Content { tag: SnapshotTag, file: String },
    #[error("snapshot `{tag}` has volumes of this host, which no archive has")]
    Volumes { tag: SnapshotTag },
    #[error("`{path}` is no whole archive of a snapshot: {what}")]
    Archive { path: PathBuf, what: String },
    #[error("failed to read archive `{path}`")]
    ReadArchive { path: PathBuf, source: io::Error },
    #[error("failed to write archive `{path}`")]
    WriteArchive { path: PathBuf, source: io::Error },
    #[error("standard output is a terminal")]
    Terminal,
    #[error("standard input is a terminal")]
    NoInput,
    #[error("not confirmed: nothing was removed")]
    NotConfirmed,
}

fn by(vms: &[VmName]) -> String {
    let names: Vec<_> = vms.iter().map(|vm| format!("`{vm}`")).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => format!(" by VM {one}"),
        several => format!(" by VMs {}", several.join(", ")),
    }
}

impl SnapshotError {
    /// An error of a file or directory of the store.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    /// Whether files are not what they were: not whether they are for this host.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::NoManifest { .. }
                | Self::LongManifest { .. }
                | Self::Json { .. }
                | Self::Invalid { .. }
                | Self::Missing { .. }
                | Self::Size { .. }
                | Self::Content { .. }
        )
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown { .. } => "`fcvm snapshot ls` lists those there are".into(),
            Self::Exists { tag } => {
                format!("choose another name, or remove it first: `fcvm snapshot rm {tag}`")
            }
            Self::InUse { vms, .. } if !vms.is_empty() => {
                let names: Vec<_> = vms.iter().map(VmName::as_str).collect();
                format!("stop what uses it first: `fcvm stop {}`", names.join(" "))
            }
            Self::InUse { .. } => "another fcvm reads it; wait for its end".into(),
            Self::Format { .. } => "use the fcvm that made it, or make it again".into(),
            Self::Host { .. } => "use it on such a host, or make it again on this one".into(),
            Self::Engine { .. } => "use that hypervisor, or make the snapshot again with this one".into(),
            Self::NotShared { .. } => {
                "leave out --diff, or use a data directory on btrfs or XFS: `make setup-btrfs` makes one"
                    .into()
            }
            Self::Protocol { .. } => "use the fcvm that made it, or make it again with this one".into(),
            Self::Volumes { .. } => "export one of a VM without --map and named volumes".into(),
            Self::Archive { .. } => FETCH_AGAIN.into(),
            Self::ReadArchive { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::Other | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                FETCH_AGAIN.into()
            }
            Self::Terminal => "name a file with --output FILE, or redirect the output".into(),
            Self::NoInput => "name a file, or redirect the input".into(),
            Self::NotConfirmed => "answer `y`, or add --force".into(),
            error if error.is_damage() => {
                "remove it with `fcvm snapshot rm`, and make or import it again".into()
            }
            error if storage_is_full(error) => {
                "free space, for instance with `fcvm snapshot prune`, or use another --data-dir".into()
            }
            _ => return None,
        })
    }
}

fn storage_is_full(error: &SnapshotError) -> bool {
    let full =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(full)
}
