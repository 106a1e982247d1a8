//! A typed client of Firecracker's HTTP API.
//!
//! It follows the API of Firecracker 1.16.1. Firecracker refuses fields that it does not know, so
//! what is optional and not set is not sent; what it answers may have fields that are unknown here.
//! A module is a noun of the API: its structs are the bodies, its methods of [`Client`] the calls.
//!
//! Firecracker serves one request at a time. Before the machine's start it takes configuration, then
//! `InstanceStart` or a snapshot's load; after it updates (`PATCH`), actions and snapshots. What it
//! refuses is an [`ApiError::Fault`] in its own words. A load that fails ends the process, too.
//!
//! Not here: what is deprecated (static CPU templates, `vsock_id`, `mem_file_path` of a load), pmem,
//! hot-plugged memory and devices, hinting by the balloon, vhost-user drives.

mod actions;
mod balloon;
mod boot_source;
mod client;
mod cpu_config;
mod drives;
mod entropy;
mod error;
mod id;
mod instance_info;
mod logger;
mod machine_config;
mod metrics;
mod mmds;
mod network_interfaces;
mod rate_limiter;
mod serial;
mod snapshot;
#[cfg(test)]
mod testing;
mod version;
mod vm;
mod vm_config;
mod vsock;

pub use actions::Action;
pub use balloon::{Balloon, BalloonStatistics, BalloonStatisticsUpdate, BalloonUpdate};
pub use boot_source::BootSource;
pub use client::{Client, Limits};
pub use drives::{CacheType, Drive, DriveUpdate, IoEngine};
pub use entropy::Entropy;
pub use error::ApiError;
pub use id::{DeviceId, ParseDeviceIdError};
pub use instance_info::{InstanceInfo, InstanceState};
pub use logger::{LogLevel, Logger};
pub use machine_config::{HugePages, MachineConfig, MachineConfigUpdate};
pub use metrics::Metrics;
pub use mmds::{MmdsConfig, MmdsVersion};
pub use network_interfaces::{NetworkInterface, NetworkInterfaceUpdate};
pub use rate_limiter::{RateLimiter, TokenBucket};
pub use serial::Serial;
pub use snapshot::{
    MemoryBackend, MemoryBackendType, NetworkOverride, SnapshotCreate, SnapshotLoad, SnapshotType,
    VsockOverride,
};
pub use version::Version;
pub use vm::VmState;
pub use vm_config::VmConfig;
pub use vsock::Vsock;
