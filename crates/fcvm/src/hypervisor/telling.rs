//! What running machines tell of themselves.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::firecracker;

/// A guest's memory in bytes, by its balloon; `None` is what the guest does not tell (yet).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GuestMemory {
    /// In all.
    pub total: Option<u64>,
    /// Used by nothing.
    pub free: Option<u64>,
    /// What programs could get.
    pub available: Option<u64>,
    /// In caches of files.
    pub cached: Option<u64>,
    /// What the guest has given back.
    pub balloon: u64,
    /// What the guest is to give back.
    pub balloon_target: u64,
}

/// What became of a machine's devices since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// How often a limit held up a disk.
    pub disk_throttled: u64,
}

/// Asks a machine that runs, by the hypervisor's name and the directory of its sockets: within half a
/// second. `None` where nobody tells, as of a machine without a balloon.
pub async fn guest_memory(hypervisor: &str, runtime_dir: &Path) -> Option<GuestMemory> {
    match hypervisor {
        firecracker::PROGRAM => firecracker::guest_memory(runtime_dir).await,
        _ => None,
    }
}

/// As [`guest_memory`], of its devices.
pub async fn traffic(hypervisor: &str, runtime_dir: &Path) -> Option<Traffic> {
    match hypervisor {
        firecracker::PROGRAM => firecracker::traffic(runtime_dir).await,
        _ => None,
    }
}
