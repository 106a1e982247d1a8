//! `/vsock`: sockets between host and guest.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ApiError, Client};

/// The vsock device: the guest's ports are reached by way of a Unix socket of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vsock {
    /// The guest's address, 3 or more. Machines of one host may have the same.
    pub guest_cid: u32,
    /// The Unix socket, which Firecracker makes at once and never removes; the guest's own connections to
    /// port N go to `<uds_path>_<N>`.
    pub uds_path: PathBuf,
}

impl Client {
    /// Adds or replaces the vsock device, before the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_vsock(&self, vsock: &Vsock) -> Result<(), ApiError> {
        self.put("/vsock", vsock).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        let vsock = Vsock { guest_cid: 3, uds_path: "/v.sock".into() };
        asked(NO_CONTENT, async |client| client.put_vsock(&vsock).await.unwrap())
            .await
            .is("PUT /vsock", json!({ "guest_cid": 3, "uds_path": "/v.sock" }));
        let seen = json!({ "vsock_id": "v", "guest_cid": 3, "uds_path": "/v.sock" });
        assert_eq!(from_value::<Vsock>(seen).unwrap(), vsock);
    }
}
