//! `/snapshot`: machines on disk.

use std::path::PathBuf;

use serde::Serialize;

use super::{ApiError, Client, DeviceId};

/// A snapshot to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotCreate {
    /// How much of the memory.
    pub snapshot_type: SnapshotType,
    /// The file for the state of processors and devices.
    pub snapshot_path: PathBuf,
    /// The file for the memory. One of the memory's size gets differences written into it.
    pub mem_file_path: PathBuf,
}

/// How much of a guest's memory a snapshot has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SnapshotType {
    /// All.
    Full,
    /// What was written since the last snapshot or load; the rest of the file are holes.
    Diff,
}

/// A snapshot to be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotLoad {
    /// The file with the state of processors and devices.
    pub snapshot_path: PathBuf,
    /// Where the memory is.
    pub mem_backend: MemoryBackend,
    /// Whether written pages are kept account of from now on, for snapshots of differences.
    pub track_dirty_pages: bool,
    /// Whether the guest runs at once.
    pub resume_vm: bool,
    /// Taps other than those of the snapshot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network_overrides: Vec<NetworkOverride>,
    /// A vsock path other than that of the snapshot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vsock_override: Option<VsockOverride>,
    /// Whether the guest's clock is moved on by the time that went by meanwhile. On x86-64 only.
    pub clock_realtime: bool,
}

/// Where a snapshot's memory is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemoryBackend {
    /// What is at the path.
    pub backend_type: MemoryBackendType,
    /// The file or socket.
    pub backend_path: PathBuf,
}

/// Who fills the memory of a loaded snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum MemoryBackendType {
    /// The kernel, from a file, which must not change as long as the machine lives.
    File,
    /// A process that listens at a Unix socket and gets the userfaultfd.
    Uffd,
}

/// Another tap behind an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkOverride {
    /// The interface.
    pub iface_id: DeviceId,
    /// The tap.
    pub host_dev_name: String,
}

/// Another Unix socket behind the vsock device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VsockOverride {
    /// The socket.
    pub uds_path: PathBuf,
}

impl MemoryBackend {
    /// A file that the kernel maps.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { backend_type: MemoryBackendType::File, backend_path: path.into() }
    }

    /// The socket of a page server.
    pub fn uffd(path: impl Into<PathBuf>) -> Self {
        Self { backend_type: MemoryBackendType::Uffd, backend_path: path.into() }
    }
}

impl SnapshotLoad {
    /// A machine as it was, which stands still.
    pub fn new(snapshot_path: impl Into<PathBuf>, mem_backend: MemoryBackend) -> Self {
        Self {
            snapshot_path: snapshot_path.into(),
            mem_backend,
            track_dirty_pages: false,
            resume_vm: false,
            network_overrides: Vec::new(),
            vsock_override: None,
            clock_realtime: false,
        }
    }
}

impl Client {
    /// Makes a snapshot of a guest that stands still. Takes as long as the memory takes to be written.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked; the file of the state may be there nevertheless.
    pub async fn put_snapshot_create(&self, create: &SnapshotCreate) -> Result<(), ApiError> {
        self.put_snapshot("/snapshot/create", create).await
    }

    /// Loads a snapshot into a process that was told nothing but logger, metrics, serial and metadata.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked. It ends with status 1 then, but where it was
    /// told something else before.
    pub async fn put_snapshot_load(&self, load: &SnapshotLoad) -> Result<(), ApiError> {
        self.put_snapshot("/snapshot/load", load).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        for (snapshot_type, name) in [(SnapshotType::Full, "Full"), (SnapshotType::Diff, "Diff")] {
            let create =
                SnapshotCreate { snapshot_type, snapshot_path: "/s".into(), mem_file_path: "/m".into() };
            asked(NO_CONTENT, async |client| client.put_snapshot_create(&create).await.unwrap()).await.is(
                "PUT /snapshot/create",
                json!({ "snapshot_type": name, "snapshot_path": "/s", "mem_file_path": "/m" }),
            );
        }
        let load = SnapshotLoad::new("/s", MemoryBackend::file("/m"));
        asked(NO_CONTENT, async |client| client.put_snapshot_load(&load).await.unwrap()).await.is(
            "PUT /snapshot/load",
            json!({
                "snapshot_path": "/s",
                "mem_backend": { "backend_type": "File", "backend_path": "/m" },
                "track_dirty_pages": false,
                "resume_vm": false,
                "clock_realtime": false,
            }),
        );
        let load = SnapshotLoad {
            mem_backend: MemoryBackend::uffd("/u"),
            track_dirty_pages: true,
            resume_vm: true,
            network_overrides: vec![NetworkOverride {
                iface_id: "eth0".parse().unwrap(),
                host_dev_name: "tap1".into(),
            }],
            vsock_override: Some(VsockOverride { uds_path: "/v".into() }),
            clock_realtime: true,
            ..load
        };
        asked(NO_CONTENT, async |client| client.put_snapshot_load(&load).await.unwrap()).await.is(
            "PUT /snapshot/load",
            json!({
                "snapshot_path": "/s",
                "mem_backend": { "backend_type": "Uffd", "backend_path": "/u" },
                "track_dirty_pages": true,
                "resume_vm": true,
                "network_overrides": [{ "iface_id": "eth0", "host_dev_name": "tap1" }],
                "vsock_override": { "uds_path": "/v" },
                "clock_realtime": true,
            }),
        );
    }
}
