//! `/network-interfaces/ID`: network interfaces.

use serde::{Deserialize, Serialize};

use super::{ApiError, Client, DeviceId, RateLimiter};

/// A network interface of the guest, and the tap of the host behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Its name in the API.
    pub iface_id: DeviceId,
    /// The tap. Root gets one that is not there made, silently.
    pub host_dev_name: String,
    /// The guest's MAC address, `02:00:…`; else the guest chooses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest_mac: Option<String>,
    /// The MTU that the guest is told, 68 or more; else nothing is said of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Limits of what the guest receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Limits of what the guest sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// A change of an interface after the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkInterfaceUpdate {
    /// Which.
    pub iface_id: DeviceId,
    /// Other limits of what the guest receives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Other limits of what the guest sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_rate_limiter: Option<RateLimiter>,
}

impl NetworkInterface {
    /// An interface without anything special.
    pub fn new(iface_id: DeviceId, host_dev_name: impl Into<String>) -> Self {
        Self {
            iface_id,
            host_dev_name: host_dev_name.into(),
            guest_mac: None,
            mtu: None,
            rx_rate_limiter: None,
            tx_rate_limiter: None,
        }
    }
}

impl Client {
    /// Adds an interface, or replaces the one of that name, before the start. Firecracker opens the
    /// tap now.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put_network_interface(&self, interface: &NetworkInterface) -> Result<(), ApiError> {
        self.put(&format!("/network-interfaces/{}", interface.iface_id), interface).await
    }

    /// Changes an interface, after the start.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn patch_network_interface(&self, update: &NetworkInterfaceUpdate) -> Result<(), ApiError> {
        self.patch(&format!("/network-interfaces/{}", update.iface_id), update).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::{
        TokenBucket,
        testing::{NO_CONTENT, asked},
    };

    #[tokio::test]
    async fn requests_are_frozen() {
        let interface = NetworkInterface::new("eth0".parse().unwrap(), "tap0");
        asked(NO_CONTENT, async |client| client.put_network_interface(&interface).await.unwrap())
            .await
            .is("PUT /network-interfaces/eth0", json!({ "iface_id": "eth0", "host_dev_name": "tap0" }));
        let limiter = RateLimiter {
            bandwidth: Some(TokenBucket { size: 1, one_time_burst: Some(2), refill_time: 3 }),
            ops: None,
        };
        let interface = NetworkInterface {
            guest_mac: Some("06:00:AC:10:00:02".into()),
            mtu: Some(1400),
            rx_rate_limiter: Some(limiter),
            tx_rate_limiter: Some(RateLimiter::default()),
            ..interface
        };
        asked(NO_CONTENT, async |client| client.put_network_interface(&interface).await.unwrap()).await.is(
            "PUT /network-interfaces/eth0",
            json!({
                "iface_id": "eth0",
                "host_dev_name": "tap0",
                "guest_mac": "06:00:AC:10:00:02",
                "mtu": 1400,
                "rx_rate_limiter": { "bandwidth": { "size": 1, "one_time_burst": 2, "refill_time": 3 } },
                "tx_rate_limiter": {},
            }),
        );
        let update = NetworkInterfaceUpdate {
            iface_id: interface.iface_id,
            rx_rate_limiter: None,
            tx_rate_limiter: Some(limiter),
        };
        asked(NO_CONTENT, async |client| client.patch_network_interface(&update).await.unwrap()).await.is(
            "PATCH /network-interfaces/eth0",
            json!({
                "iface_id": "eth0",
                "tx_rate_limiter": { "bandwidth": { "size": 1, "one_time_burst": 2, "refill_time": 3 } },
            }),
        );
    }
}
