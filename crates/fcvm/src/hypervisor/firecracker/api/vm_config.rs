//! `/vm/config`: all of a machine at once.

use serde::Deserialize;

use super::{
    ApiError, Balloon, BootSource, Client, Drive, Entropy, MachineConfig, MmdsConfig, NetworkInterface, Vsock,
};

/// All of a machine's configuration. There are places in it for log, counters and CPU template, which
/// Firecracker leaves empty.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VmConfig {
    /// The balloon.
    pub balloon: Option<Balloon>,
    /// Drives, in the order that the guest sees.
    #[serde(default)]
    pub drives: Vec<Drive>,
    /// What it booted; of a restored machine, what the one of the snapshot booted.
    pub boot_source: BootSource,
    /// Processors and memory.
    pub machine_config: Option<MachineConfig>,
    /// How the guest reaches its metadata.
    pub mmds_config: Option<MmdsConfig>,
    /// Network interfaces.
    #[serde(default)]
    pub network_interfaces: Vec<NetworkInterface>,
    /// The vsock device.
    pub vsock: Option<Vsock>,
    /// The entropy device.
    pub entropy: Option<Entropy>,
}

impl Client {
    /// All of the machine's configuration.
    ///
    /// # Errors
    /// Where Firecracker cannot be asked.
    pub async fn get_vm_config(&self) -> Result<VmConfig, ApiError> {
        self.get("/vm/config").await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hypervisor::firecracker::api::testing::{asked, ok};

    #[tokio::test]
    async fn nulls_and_unknown_fields_are_taken() {
        let answer = json!({
            "balloon": null,
            "drives": [],
            "boot-source": { "kernel_image_path": "/k", "initrd_path": null, "boot_args": null },
            "cpu-config": null,
            "logger": null,
            "machine-config": {
                "vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None",
            },
            "metrics": null,
            "mmds-config": null,
            "network-interfaces": [{
                "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": null, "mtu": null,
                "rx_rate_limiter": null, "tx_rate_limiter": null,
            }],
            "vsock": { "guest_cid": 3, "uds_path": "/v" },
            "entropy": { "rate_limiter": null },
            "pmem": [],
            "memory-hotplug": null,
            "of-tomorrow": 1,
        });
        let asked = asked(ok(answer), async |client| {
            let expected = VmConfig {
                balloon: None,
                drives: Vec::new(),
                boot_source: BootSource::new("/k"),
                machine_config: Some(MachineConfig::new(1, 128)),
                mmds_config: None,
                network_interfaces: vec![NetworkInterface::new("eth0".parse().unwrap(), "tap0")],
                vsock: Some(Vsock { guest_cid: 3, uds_path: "/v".into() }),
                entropy: Some(Entropy::default()),
            };
            assert_eq!(client.get_vm_config().await.unwrap(), expected);
        });
        asked.await.is_get("/vm/config");
    }
}
