//! `/vm`: whether the guest runs.

use serde::Serialize;

use super::{ApiError, Client};

/// Whether the guest is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum VmState {
    /// It stands still: what a snapshot needs.
    Paused,
    /// It runs.
    Resumed,
}

#[derive(Debug, Serialize)]
struct VmBody {
    state: VmState,
}

impl Client {
    /// Lets the guest stand still or run, after the start; what it does already is no error.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn patch_vm(&self, state: VmState) -> Result<(), ApiError> {
        self.patch("/vm", &VmBody { state }).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        for (state, name) in [(VmState::Paused, "Paused"), (VmState::Resumed, "Resumed")] {
            asked(NO_CONTENT, async |client| client.patch_vm(state).await.unwrap())
                .await
                .is("PATCH /vm", json!({ "state": name }));
        }
    }
}
