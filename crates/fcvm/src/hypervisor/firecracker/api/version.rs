//! `/version`: Firecracker's version.

use serde::Deserialize;

use super::{ApiError, Client};

/// Firecracker's version.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Version {
    /// `1.16.1`
    pub firecracker_version: String,
}

impl Client {
    /// Firecracker's version.
    ///
    /// # Errors
    /// Where Firecracker cannot be asked.
    pub async fn get_version(&self) -> Result<Version, ApiError> {
        self.get("/version").await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::hypervisor::firecracker::api::testing::{asked, ok};

    #[tokio::test]
    async fn the_version_is_read() {
        let asked = asked(ok(json!({ "firecracker_version": "1.16.1", "new": 1 })), async |client| {
            assert_eq!(client.get_version().await.unwrap().firecracker_version, "1.16.1");
        });
        asked.await.is_get("/version");
    }
}
