//! `/metrics`: where Firecracker's counters go.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ApiError, Client};

/// Firecracker's counters, a line of JSON each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// A file or named pipe.
    pub metrics_path: PathBuf,
}

impl Client {
    /// Sets where the counters go, once, before the start; before a snapshot's load, too.
    ///
    /// # Errors
    /// Where Firecracker refuses, a second time too, or cannot be asked.
    pub async fn put_metrics(&self, metrics: &Metrics) -> Result<(), ApiError> {
        self.put("/metrics", metrics).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        let metrics = Metrics { metrics_path: "/m".into() };
        asked(NO_CONTENT, async |client| client.put_metrics(&metrics).await.unwrap())
            .await
            .is("PUT /metrics", json!({ "metrics_path": "/m" }));
    }
}
