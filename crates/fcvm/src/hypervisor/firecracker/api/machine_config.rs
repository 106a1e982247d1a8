//! `/machine-config`: processors and memory.

use serde::{Deserialize, Serialize};

use super::{ApiError, Client};

/// Processors and memory of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineConfig {
    /// Virtual CPUs: 1 to 32; with `smt` 1 or an even number.
    pub vcpu_count: u8,
    /// Memory in MiB.
    pub mem_size_mib: u32,
    /// Whether pairs of CPUs are threads of a core. On x86-64 only.
    #[serde(default)]
    pub smt: bool,
    /// Whether the kernel keeps account of the pages that are written, for snapshots of differences.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Pages of the host behind the memory.
    #[serde(default)]
    pub huge_pages: HugePages,
}

/// Pages of the host behind a guest's memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// Of the usual size.
    #[default]
    None,
    /// Of hugetlbfs, 2 MiB each: the memory's size is a multiple of that.
    #[serde(rename = "2M")]
    TwoMib,
}

/// A change of some of a [`MachineConfig`] before the start: of one thing at least.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MachineConfigUpdate {
    /// Virtual CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu_count: Option<u8>,
    /// Memory in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_size_mib: Option<u32>,
    /// Whether pairs of CPUs are threads of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smt: Option<bool>,
    /// Whether written pages are kept account of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track_dirty_pages: Option<bool>,
    /// Pages of the host behind the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub huge_pages: Option<HugePages>,
}

impl MachineConfig {
    /// A machine without anything special.
    #[must_use]
    pub fn new(vcpu_count: u8, mem_size_mib: u32) -> Self {
        let (smt, track_dirty_pages, huge_pages) = (false, false, HugePages::None);
        Self { vcpu_count, mem_size_mib, smt, track_dirty_pages, huge_pages }
    }
}

impl Client {
    /// Sets processors and memory, before the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_machine_config(&self, config: &MachineConfig) -> Result<(), ApiError> {
        self.put("/machine-config", config).await
    }

    /// Changes some of that, before the start.
    ///
    /// # Errors
    /// Where Firecracker refuses, an empty change too, or cannot be asked.
    pub async fn patch_machine_config(&self, update: &MachineConfigUpdate) -> Result<(), ApiError> {
        self.patch("/machine-config", update).await
    }

    /// Processors and memory; those of a machine that was told nothing are 1 and 128 MiB.
    ///
    /// # Errors
    /// Where Firecracker cannot be asked.
    pub async fn get_machine_config(&self) -> Result<MachineConfig, ApiError> {
        self.get("/machine-config").await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked, ok};

    #[tokio::test]
    async fn requests_are_frozen() {
        let config = MachineConfig { track_dirty_pages: true, ..MachineConfig::new(2, 512) };
        asked(NO_CONTENT, async |client| client.put_machine_config(&config).await.unwrap()).await.is(
            "PUT /machine-config",
            json!({ "vcpu_count": 2, "mem_size_mib": 512, "smt": false, "track_dirty_pages": true, "huge_pages": "None" }),
        );
        let update = MachineConfigUpdate { huge_pages: Some(HugePages::TwoMib), ..Default::default() };
        asked(NO_CONTENT, async |client| client.patch_machine_config(&update).await.unwrap())
            .await
            .is("PATCH /machine-config", json!({ "huge_pages": "2M" }));
        let update = MachineConfigUpdate {
            vcpu_count: Some(1),
            mem_size_mib: Some(2),
            smt: Some(true),
            track_dirty_pages: Some(false),
            huge_pages: None,
        };
        asked(NO_CONTENT, async |client| client.patch_machine_config(&update).await.unwrap()).await.is(
            "PATCH /machine-config",
            json!({ "vcpu_count": 1, "mem_size_mib": 2, "smt": true, "track_dirty_pages": false }),
        );
    }

    #[tokio::test]
    async fn an_answer_may_have_unknown_fields() {
        let answer = ok(json!({ "vcpu_count": 1, "mem_size_mib": 128, "cpu_template": "T2", "new": {} }));
        let asked = asked(answer, async |client| {
            assert_eq!(client.get_machine_config().await.unwrap(), MachineConfig::new(1, 128));
        });
        asked.await.is_get("/machine-config");
    }
}
