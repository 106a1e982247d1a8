//! What Firecracker is told of a machine: decided first, then told.

use std::{net::Ipv4Addr, path::Path};

use fcvm_proto::Interface;
use serde_json::Value;

use super::{
    api::{
        ApiError, Balloon, BootSource, CacheType, Client, DeviceId, Drive, Entropy, HugePages, IoEngine,
        MachineConfig as Processors, MmdsConfig, NetworkInterface, RateLimiter, TokenBucket, Vsock,
    },
    places::Places,
    vsock,
};
use crate::hypervisor::{Access, CpuTemplate, Disk, DiskLimits, MachineConfig, Pages};

/// The guest's address on vsock: the first that is free, as each machine has a vsock of its own.
const GUEST_CID: u32 = 3;
/// Seconds between what the guest tells of its memory. Firecracker complains of one that is slower,
/// as an emulated kernel at work is.
const STATISTICS: u16 = 1;
/// Of the guest's network interface: of those that nobody assigns, the same in every machine.
const MAC: [u8; 6] = [0x02, 0xfc, 0, 0, 0, 1];
/// Where clouds have their metadata services.
const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The only other address of the smallest network with that one.
const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
const PREFIX: u8 = 30;
/// Milliseconds in which a limit's bucket becomes full again: limits are by the second.
const REFILL: u64 = 1000;

/// The bodies of all requests before the start.
#[derive(Debug)]
pub(super) struct Configuration {
    processors: Processors,
    cpu_template: Option<CpuTemplate>,
    boot: BootSource,
    drives: Vec<Drive>,
    balloon: Option<Balloon>,
    metadata: Option<Metadata>,
    vsock: Vsock,
    entropy: Entropy,
}

impl Configuration {
    /// What makes this machine of things in these places, whose guest is so many times slower than the
    /// host and boots with these kernel parameters.
    pub(super) fn of(machine: &MachineConfig, parameters: String, places: &Places, slowness: u16) -> Self {
        let boot = BootSource {
            initrd_path: Some(places.initrd.clone()),
            boot_args: Some(parameters),
            ..BootSource::new(&places.kernel)
        };
        let disks = machine.disks.iter().zip(&places.disks).enumerate();
        Self {
            processors: Processors {
                huge_pages: match machine.options.pages {
                    Pages::Usual => HugePages::None,
                    Pages::Huge => HugePages::TwoMib,
                },
                ..Processors::new(machine.cpus, machine.memory_mib)
            },
            cpu_template: machine.options.cpu_template.clone(),
            boot,
            drives: disks.map(|(index, (disk, place))| drive(index, disk, place)).collect(),
            balloon: machine.options.balloon_mib.map(|mib| balloon(mib, slowness)),
            metadata: places.tap.zip(machine.metadata.as_ref()).map(|(tap, data)| Metadata::of(tap, data)),
            vsock: Vsock { guest_cid: GUEST_CID, uds_path: places.run.join(vsock::SOCKET) },
            entropy: Entropy::default(),
        }
    }

    /// Tells it. Firecracker reads the kernel at the start only, and opens disks at once; the guest
    /// sees them in this order.
    ///
    /// # Errors
    /// What it refuses.
    pub(super) async fn apply(&self, client: &Client) -> Result<(), ApiError> {
        client.put_machine_config(&self.processors).await?;
        if let Some(CpuTemplate(template)) = &self.cpu_template {
            client.put_cpu_config(template).await?;
        }
        client.put_boot_source(&self.boot).await?;
        for drive in &self.drives {
            client.put_drive(drive).await?;
        }
        // After the memory that it takes from.
        if let Some(balloon) = &self.balloon {
            client.put_balloon(balloon).await?;
        }
        if let Some(metadata) = &self.metadata {
            client.put_network_interface(&metadata.interface).await?;
            client.put_mmds_config(&metadata.service).await?;
            client.put_mmds(&metadata.data).await?;
        }
        client.put_vsock(&self.vsock).await?;
        client.put_entropy(&self.entropy).await
    }
}

fn drive(index: usize, disk: &Disk, place: &Path) -> Drive {
    let id: DeviceId = format!("disk{index}").parse().expect("letters and digits make an id");
    Drive {
        is_read_only: Some(disk.access == Access::ReadOnly),
        cache_type: match disk.access {
            // Nothing of it is there after a crash, so that the guest's flushes need not reach the device.
            Access::ReadOnly | Access::Ephemeral => CacheType::Unsafe,
            Access::Durable => CacheType::Writeback,
        },
        // Its other engine makes restoring slow.
        io_engine: Some(IoEngine::Sync),
        rate_limiter: limiter(disk.limits),
        ..Drive::new(id, place)
    }
}

/// What a guest can ask about itself, and where.
#[derive(Debug)]
struct Metadata {
    interface: NetworkInterface,
    service: MmdsConfig,
    data: Value,
}

impl Metadata {
    fn of(tap: &str, data: &Value) -> Self {
        let id: DeviceId = "eth0".parse().expect("letters and digits make an id");
        let mac = MAC.map(|byte| format!("{byte:02x}")).join(":");
        Self {
            interface: NetworkInterface { guest_mac: Some(mac), ..NetworkInterface::new(id.clone(), tap) },
            service: MmdsConfig { ipv4_address: Some(METADATA_ADDRESS), ..MmdsConfig::new(vec![id]) },
            data: data.clone(),
        }
    }
}

/// The interface as the guest has to set it up, where it has one: the network is that of the metadata
/// service, and nothing else is in it.
pub(super) fn interfaces(machine: &MachineConfig, places: &Places) -> Vec<Interface> {
    let interface = Interface { mac: MAC, address: GUEST_ADDRESS, prefix: PREFIX };
    if places.tap.is_some() && machine.metadata.is_some() { vec![interface] } else { Vec::new() }
}

/// A guest that runs out of memory takes back what it gave, before it kills anything.
fn balloon(amount_mib: u32, slowness: u16) -> Balloon {
    Balloon {
        amount_mib,
        deflate_on_oom: true,
        stats_polling_interval_s: STATISTICS.saturating_mul(slowness),
        ..Balloon::default()
    }
}

fn limiter(limits: DiskLimits) -> Option<RateLimiter> {
    let bucket = |size| TokenBucket { size, one_time_burst: None, refill_time: REFILL };
    let limiter = RateLimiter { bandwidth: limits.bytes.map(bucket), ops: limits.operations.map(bucket) };
    (limits != DiskLimits::default()).then_some(limiter)
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;
    use crate::hypervisor::{MachineOptions, test_machine};

    fn configuration(machine: &MachineConfig, slowness: u16) -> Configuration {
        Configuration::of(machine, "quiet".into(), &Places::inside(machine), slowness)
    }

    #[test]
    fn disks_keep_their_order_and_access() {
        let limits = DiskLimits::default();
        let disk = |path: &str, access| Disk { serial: path.into(), path: path.into(), access, limits };
        let disks = vec![
            disk("/base", Access::ReadOnly),
            disk("/scratch", Access::Ephemeral),
            disk("/kept", Access::Durable),
        ];
        let configuration = configuration(&MachineConfig { disks, ..test_machine() }, 1);
        let seen: Vec<_> = configuration
            .drives
            .iter()
            .map(|drive| (drive.drive_id.as_str(), drive.is_read_only, drive.cache_type))
            .collect();
        let expected = [
            ("disk0", Some(true), CacheType::Unsafe),
            ("disk1", Some(false), CacheType::Unsafe),
            ("disk2", Some(false), CacheType::Writeback),
        ];
        assert_eq!(seen, expected);
        assert!(configuration.drives.iter().all(|drive| !drive.is_root_device), "the agent finds the root");
    }

    #[test]
    fn a_usual_machine_is_told_of_nothing_else() {
        let configuration = configuration(&test_machine(), 1);
        assert_eq!(configuration.processors, Processors::new(2, 512));
        assert_eq!(configuration.balloon, None);
        assert_eq!(configuration.cpu_template, None);
        assert_eq!(configuration.drives[0].rate_limiter, None);
    }

    #[test]
    fn what_is_beyond_the_usual_has_a_body_of_its_own() {
        let template = json!({ "kvm_capabilities": ["!56"] }).as_object().unwrap().clone();
        let mut machine = test_machine();
        machine.options = MachineOptions {
            balloon_mib: Some(64),
            pages: Pages::Huge,
            cpu_template: Some(CpuTemplate(template.clone())),
            jail: None,
        };
        machine.disks[0].limits = DiskLimits { bytes: Some(10 << 20), operations: None };
        let configuration = configuration(&machine, 10);
        assert_eq!(configuration.processors.huge_pages, HugePages::TwoMib);
        assert_eq!(configuration.cpu_template, Some(CpuTemplate(template)));
        let body = json!({
            "amount_mib": 64,
            "deflate_on_oom": true,
            "stats_polling_interval_s": 10,
            "free_page_hinting": false,
            "free_page_reporting": false,
        });
        assert_eq!(to_value(configuration.balloon).unwrap(), body);
        let body = json!({ "bandwidth": { "size": 10_485_760, "refill_time": 1000 } });
        assert_eq!(to_value(configuration.drives[0].rate_limiter).unwrap(), body);
        let limits = DiskLimits { bytes: None, operations: Some(100) };
        let body = json!({ "ops": { "size": 100, "refill_time": 1000 } });
        assert_eq!(to_value(limiter(limits)).unwrap(), body);
    }
}
