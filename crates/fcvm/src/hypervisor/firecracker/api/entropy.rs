//! `/entropy`: random numbers for the guest.

use serde::{Deserialize, Serialize};

use super::{ApiError, Client, RateLimiter};

/// The entropy device (virtio-rng).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entropy {
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

impl Client {
    /// Adds the entropy device, before the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_entropy(&self, entropy: &Entropy) -> Result<(), ApiError> {
        self.put("/entropy", entropy).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked};

    #[tokio::test]
    async fn requests_are_frozen() {
        asked(NO_CONTENT, async |client| client.put_entropy(&Entropy::default()).await.unwrap())
            .await
            .is("PUT /entropy", json!({}));
        let entropy = Entropy { rate_limiter: Some(RateLimiter::default()) };
        asked(NO_CONTENT, async |client| client.put_entropy(&entropy).await.unwrap())
            .await
            .is("PUT /entropy", json!({ "rate_limiter": {} }));
    }
}
