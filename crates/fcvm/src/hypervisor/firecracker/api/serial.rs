//! `/serial`: the guest's console.

use std::path::PathBuf;

use serde::Serialize;

use super::{ApiError, Client, TokenBucket};

/// The guest's serial console; at first Firecracker's own input and output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Serial {
    /// A file or named pipe for what the guest writes; the guest gets no input then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_out_path: Option<PathBuf>,
    /// Bytes that the guest may write: what is more is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<TokenBucket>,
}

impl Client {
    /// Sets the console, before the start; before a snapshot's load, too.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_serial(&self, serial: &Serial) -> Result<(), ApiError> {
        self.put("/serial", serial).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        asked(NO_CONTENT, async |client| client.put_serial(&Serial::default()).await.unwrap())
            .await
            .is("PUT /serial", json!({}));
        let bucket = TokenBucket { size: 1, one_time_burst: None, refill_time: 2 };
        let serial = Serial { serial_out_path: Some("/s".into()), rate_limiter: Some(bucket) };
        asked(NO_CONTENT, async |client| client.put_serial(&serial).await.unwrap()).await.is(
            "PUT /serial",
            json!({ "serial_out_path": "/s", "rate_limiter": { "size": 1, "refill_time": 2 } }),
        );
    }
}
