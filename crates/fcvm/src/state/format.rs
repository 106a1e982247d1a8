//! The state file: one JSON object per VM.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{VmId, VmName};
use crate::{hash::Digest, process::Owner};

/// Version of the state file. A file of a newer one is left alone.
pub const FORMAT: u32 = 1;

/// What is known about a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmState {
    /// [`FORMAT`].
    pub format: u32,
    /// The VM's id.
    pub id: VmId,
    /// The VM's name.
    pub name: VmName,
    /// What kind of process owns it.
    pub process_type: ProcessType,
    /// The fcvm process that is this VM's lifetime.
    pub owner: Owner,
    /// The hypervisor's process, once it runs.
    pub hypervisor_process: Option<Owner>,
    /// The hypervisor's name.
    pub hypervisor: String,
    /// The image as the user wrote it.
    pub image: String,
    /// The image's manifest digest, once it is known.
    pub image_digest: Option<Digest>,
    /// The command, empty for the image's own.
    pub command: Vec<String>,
    /// Where the VM is in its life.
    pub status: Status,
    /// What health checks say.
    pub health_status: HealthStatus,
    /// The container's status once it has ended.
    pub exit_code: Option<u8>,
    /// When the VM was created.
    pub created: Timestamp,
    /// When the container started.
    pub started: Option<Timestamp>,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// For a clone: the PID of the page server.
    pub serve_pid: Option<i32>,
    /// For a clone: the snapshot it came from.
    pub snapshot_name: Option<String>,
    /// Published ports: host address, guest port.
    pub ports: Vec<(SocketAddr, u16)>,
}

/// What kind of process owns a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessType {
    /// `podman run`
    Vm,
    /// `snapshot serve`
    Serve,
    /// `snapshot run`
    Clone,
}

/// Where a VM is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its image and disks are being prepared.
    Created,
    /// The machine boots.
    Starting,
    /// The container runs.
    Running,
    /// The container has ended; what is left is being drained and removed.
    Stopping,
}

/// What health checks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not known yet.
    Starting,
    /// All is well: without a check of its own, a container that runs.
    Healthy,
    /// The check fails.
    Unhealthy,
    /// The container has ended.
    Stopped,
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
        })
    }
}
