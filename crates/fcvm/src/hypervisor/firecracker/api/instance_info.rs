//! `/`: what this process is and does.

use serde::Deserialize;

use super::{ApiError, Client};

/// What a Firecracker process is and does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct InstanceInfo {
    /// Its option `--id`.
    pub id: String,
    /// What the guest does.
    pub state: InstanceState,
    /// Its version, `1.16.1`.
    pub vmm_version: String,
    /// `Firecracker`.
    pub app_name: String,
}

/// What the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum InstanceState {
    /// There is none yet.
    #[serde(rename = "Not started")]
    NotStarted,
    /// It runs.
    Running,
    /// It stands still.
    Paused,
}

impl Client {
    /// What this process is and does.
    ///
    /// # Errors
    /// Where Firecracker cannot be asked.
    pub async fn get_instance_info(&self) -> Result<InstanceInfo, ApiError> {
        self.get("/").await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{asked, ok};

    #[tokio::test]
    async fn states_have_their_names() {
        for (name, state) in [
            ("Not started", InstanceState::NotStarted),
            ("Running", InstanceState::Running),
            ("Paused", InstanceState::Paused),
        ] {
            let answer = ok(
                json!({ "id": "a", "state": name, "vmm_version": "1.16.1", "app_name": "Firecracker", "new": 1 }),
            );
            let asked = asked(answer, async |client| {
                let info = client.get_instance_info().await.unwrap();
                assert_eq!((&*info.id, info.state, &*info.vmm_version), ("a", state, "1.16.1"));
            });
            asked.await.is_get("/");
        }
    }
}
