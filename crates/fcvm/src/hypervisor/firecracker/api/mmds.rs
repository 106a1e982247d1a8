//! `/mmds`: data that the guest reads by HTTP from a link-local address.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{ApiError, Client, DeviceId};

/// How the guest reaches the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmdsConfig {
    /// Version of the protocol.
    pub version: MmdsVersion,
    /// Interfaces on which requests are answered: at least one, all there already.
    pub network_interfaces: Vec<DeviceId>,
    /// The address; else 169.254.169.254.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv4_address: Option<Ipv4Addr>,
    /// Whether answers are `text/plain` whatever is asked for, as EC2's are.
    #[serde(default)]
    pub imds_compat: bool,
}

/// The protocol between the guest and its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MmdsVersion {
    /// Requests and answers; deprecated.
    V1,
    /// Sessions opened by a token.
    V2,
}

impl MmdsConfig {
    /// Version 2 on these interfaces.
    #[must_use]
    pub fn new(network_interfaces: Vec<DeviceId>) -> Self {
        Self { version: MmdsVersion::V2, network_interfaces, ipv4_address: None, imds_compat: false }
    }
}

impl Client {
    /// Sets how the guest reaches its data, before the start and after the interfaces.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_mmds_config(&self, config: &MmdsConfig) -> Result<(), ApiError> {
        self.put("/mmds/config", config).await
    }

    /// Replaces the data by an object, at any time; before a snapshot's load, too.
    ///
    /// # Errors
    /// Where Firecracker refuses, with status 413 what is too long, or cannot be asked.
    pub async fn put_mmds(&self, data: &(impl Serialize + ?Sized)) -> Result<(), ApiError> {
        self.put("/mmds", data).await
    }

    /// Merges an object into the data, as of RFC 7396: null removes.
    ///
    /// # Errors
    /// Where Firecracker refuses, data that was never put too, or cannot be asked.
    pub async fn patch_mmds(&self, data: &(impl Serialize + ?Sized)) -> Result<(), ApiError> {
        self.patch("/mmds", data).await
    }

    /// The data; an empty object where there is none.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked, or the data is no `T`.
    pub async fn get_mmds<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        self.get("/mmds").await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{NO_CONTENT, asked, ok};

    #[tokio::test]
    async fn requests_are_frozen() {
        let config = MmdsConfig::new(vec!["eth0".parse().unwrap()]);
        asked(NO_CONTENT, async |client| client.put_mmds_config(&config).await.unwrap()).await.is(
            "PUT /mmds/config",
            json!({ "version": "V2", "network_interfaces": ["eth0"], "imds_compat": false }),
        );
        let config = MmdsConfig {
            version: MmdsVersion::V1,
            ipv4_address: Some(Ipv4Addr::new(169, 254, 169, 253)),
            imds_compat: true,
            ..config
        };
        asked(NO_CONTENT, async |client| client.put_mmds_config(&config).await.unwrap()).await.is(
            "PUT /mmds/config",
            json!({
                "version": "V1",
                "network_interfaces": ["eth0"],
                "ipv4_address": "169.254.169.253",
                "imds_compat": true,
            }),
        );
        let data = json!({ "a": { "b": null } });
        asked(NO_CONTENT, async |client| client.put_mmds(&data).await.unwrap())
            .await
            .is("PUT /mmds", data.clone());
        asked(NO_CONTENT, async |client| client.patch_mmds(&data).await.unwrap())
            .await
            .is("PATCH /mmds", data.clone());
        let asked = asked(ok(data.clone()), async |client| {
            assert_eq!(client.get_mmds::<Value>().await.unwrap(), data);
        });
        asked.await.is_get("/mmds");
    }
}
