//! `/actions`: what is done at once.

use serde::Serialize;

use super::{ApiError, Client};

/// What is done at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Action {
    /// Starts the machine: the end of its configuration.
    InstanceStart,
    /// Writes the counters now.
    FlushMetrics,
    /// Presses these keys on the guest's keyboard: a guest that listens reboots, which ends Firecracker.
    /// On x86-64 only.
    SendCtrlAltDel,
}

#[derive(Debug, Serialize)]
struct ActionBody {
    action_type: Action,
}

impl Client {
    /// Does something at once.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_action(&self, action: Action) -> Result<(), ApiError> {
        self.put("/actions", &ActionBody { action_type: action }).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        for (action, name) in [
            (Action::InstanceStart, "InstanceStart"),
            (Action::FlushMetrics, "FlushMetrics"),
            (Action::SendCtrlAltDel, "SendCtrlAltDel"),
        ] {
            asked(NO_CONTENT, async |client| client.put_action(action).await.unwrap())
                .await
                .is("PUT /actions", json!({ "action_type": name }));
        }
    }
}
