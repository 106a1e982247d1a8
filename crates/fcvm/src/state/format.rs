//! The state file: one JSON object per VM.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{RestartPolicy, VmId, VmName};
use crate::{
    hash::Digest,
    network::{NetworkRecord, PortRecord},
    process::Owner,
    snapshot::Moment,
};

/// Version of the state file. A file of a newer one is left alone.
pub const FORMAT: u32 = 3;

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
    /// The last results of the health check, the newest last: at most [`HEALTH_LOG`].
    #[serde(default)]
    pub health_log: Vec<HealthResult>,
    /// Whether the guest answers: one that does not says nothing of its container's health.
    #[serde(default = "yes")]
    pub responding: bool,
    /// Whether the container runs again once it has ended.
    #[serde(default)]
    pub restart_policy: RestartPolicy,
    /// How often it ran again.
    #[serde(default)]
    pub restarts: u32,
    /// The container's status once it has ended.
    pub exit_code: Option<u8>,
    /// Why there is no exit code, where a VM ended without one.
    #[serde(default)]
    pub error: Option<String>,
    /// When the VM was created.
    pub created: Timestamp,
    /// When the container started.
    pub started: Option<Timestamp>,
    /// When the VM ended.
    #[serde(default)]
    pub finished: Option<Timestamp>,
    /// Whether it runs in the background: its record and log then stay when it has ended.
    #[serde(default)]
    pub detached: bool,
    /// Whether nothing of it is to stay, also in the background.
    #[serde(default)]
    pub remove: bool,
    /// The user's labels of the container.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// For a clone: the PID of the page server.
    pub serve_pid: Option<i32>,
    /// For a clone: the snapshot it came from.
    pub snapshot_name: Option<String>,
    /// When the machine was saved that this one went on from by itself, where it did not boot.
    #[serde(default)]
    pub warm_start: Option<Moment>,
    /// What the container has beside its image.
    #[serde(default)]
    pub mounts: Vec<MountRecord>,
    /// What its network has of what there is once only; none as long as that is not decided.
    #[serde(default)]
    pub network: Option<NetworkRecord>,
    /// Published ports.
    pub ports: Vec<PortRecord>,
}

impl VmState {
    /// Whether its owner lives and has not yet done all it does.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.status != Status::Exited && self.owner.is_alive()
    }

    /// All has ended, now.
    pub(super) fn end(&mut self) {
        self.status = Status::Exited;
        self.health_status = HealthStatus::Stopped;
        self.hypervisor_process = None;
        self.finished = Some(Timestamp::now());
    }

    /// Whether record and log stay when it ends: one that never ran is gone.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.detached && !self.remove && self.started.is_some()
    }
}

/// A mount of the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountRecord {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: MountKind,
    /// Of a named volume.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// On the host; empty where it is the guest's own.
    pub source: std::path::PathBuf,
    /// In the container.
    pub destination: String,
    /// Podman's options of it.
    pub options: Vec<String>,
    /// Whether it can be written to.
    pub writable: bool,
}

/// Kinds of mounts, in Podman's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A directory or file of the host.
    Bind,
    /// A volume: a named one is on the host.
    Volume,
    /// In the guest's memory.
    Tmpfs,
}

fn yes() -> bool {
    true
}

/// Length of [`VmState::health_log`], as Podman's.
pub const HEALTH_LOG: usize = 5;

/// One health check that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthResult {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// The status of a command; of a request 0 where the answer was as expected, else 1.
    pub exit_code: u8,
    /// What the command wrote, or what was answered: untrusted, cut.
    pub output: String,
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
    /// `podman prepare`: for others to go on from
    Prepare,
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
    /// All has ended; record and log are left.
    Exited,
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

impl std::fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Stopped => "stopped",
        })
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Exited => "exited",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of format 1, as a VM of the fcvm before this one has it while both run.
    #[test]
    fn format_1_is_read() {
        let text = r#"{"format":1,"id":"0123456789abcdef0123456789abcdef","name":"web","process_type":"vm",
            "owner":{"pid":1,"start_time":2,"boot_id":"b"},"hypervisor_process":null,"hypervisor":"qemu",
            "image":"hello","image_digest":null,"command":["sh"],"status":"running",
            "health_status":"healthy","exit_code":null,"created":"2026-11-21T17:00:00Z",
            "started":"2026-11-21T17:00:01Z","cpus":1,"memory_mib":256,"serve_pid":null,
            "snapshot_name":null,"ports":[]}"#;
        let state: VmState = serde_json::from_str(text).unwrap();
        assert!(!state.is_kept() && !state.is_alive(), "{state:?}");
        assert_eq!((state.status, state.finished, state.error), (Status::Running, None, None));
        assert!(state.responding && state.restart_policy == RestartPolicy::No);
        assert!(state.network.is_none() && state.ports.is_empty());
    }
}
