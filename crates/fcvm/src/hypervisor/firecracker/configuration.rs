//! What Firecracker is told of a machine: decided first, then told.

use std::{net::Ipv4Addr, path::Path};

use fcvm_proto::{Address, Interface, Route};
use serde_json::Value;

use super::{
    api::{
        Action, ApiError, Balloon, BootSource, CacheType, Client, DeviceId, Drive, Entropy, HugePages,
        IoEngine, MachineConfig as Processors, MemoryBackend, MmdsConfig, NetworkInterface, RateLimiter,
        SnapshotLoad, TokenBucket, Vsock,
    },
    places::Places,
    vsock,
};
use crate::hypervisor::{Access, CpuTemplate, Disk, DiskLimits, MachineConfig, Pages, Saved, nic};

/// The guest's address on vsock: the first that is free, as each machine has a vsock of its own.
const GUEST_CID: u32 = 3;
/// Seconds between what the guest tells of its memory. Firecracker complains of one that is slower,
/// as an emulated kernel at work is.
const STATISTICS: u16 = 1;
/// Of the guest's interface in a network of the metadata service alone: of those that nobody assigns, the
/// same in every machine.
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
    network: Option<NetworkInterface>,
    metadata: Option<Metadata>,
    vsock: Vsock,
    entropy: Entropy,
    saved: Option<Saved>,
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
        let interface = interface(machine, places);
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
            network: interface.as_ref().zip(places.tap.as_ref()).map(|(it, tap)| network(it, tap)),
            metadata: interface.and(machine.metadata.as_ref()).map(Metadata::of),
            vsock: Vsock { guest_cid: GUEST_CID, uds_path: places.run.join(vsock::SOCKET) },
            entropy: Entropy::default(),
            saved: places.saved.clone(),
        }
    }

    /// Has the machine run: as what it went on from says, or from its boot.
    ///
    /// # Errors
    /// What it refuses.
    pub(super) async fn start(&self, client: &Client) -> Result<(), ApiError> {
        let Some(saved) = &self.saved else {
            self.apply(client).await?;
            crate::failpoint::reach("configured");
            return client.put_action(Action::InstanceStart).await;
        };
        // Its service is the saved machine's, what it serves this one's.
        if let Some(metadata) = &self.metadata {
            client.put_mmds(&metadata.data).await?;
        }
        crate::failpoint::reach("configured");
        let memory = match &saved.pages {
            Some(pages) => MemoryBackend::uffd(pages),
            None => MemoryBackend::file(&saved.memory),
        };
        let load = SnapshotLoad {
            resume_vm: true,
            // On others the guest's clock is the agent's affair alone.
            clock_realtime: cfg!(target_arch = "x86_64"),
            ..SnapshotLoad::new(&saved.state, memory)
        };
        client.put_snapshot_load(&load).await?;
        crate::failpoint::reach("state-loaded");
        Ok(())
    }

    /// Tells it. Firecracker reads the kernel at the start only, and opens disks at once; the guest
    /// sees them in this order.
    ///
    /// # Errors
    /// What it refuses.
    async fn apply(&self, client: &Client) -> Result<(), ApiError> {
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
        if let Some(interface) = &self.network {
            client.put_network_interface(interface).await?;
        }
        if let Some(metadata) = &self.metadata {
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

/// What a guest can ask about itself, at its one interface.
#[derive(Debug)]
struct Metadata {
    service: MmdsConfig,
    data: Value,
}

impl Metadata {
    fn of(data: &Value) -> Self {
        let service = MmdsConfig { ipv4_address: Some(METADATA_ADDRESS), ..MmdsConfig::new(vec![eth0()]) };
        Self { service, data: data.clone() }
    }
}

fn eth0() -> DeviceId {
    "eth0".parse().expect("letters and digits make an id")
}

fn network(interface: &Interface, tap: &str) -> NetworkInterface {
    NetworkInterface {
        guest_mac: Some(nic::mac(interface.mac)),
        mtu: interface.mtu.and_then(|mtu| mtu.try_into().ok()),
        ..NetworkInterface::new(eth0(), tap)
    }
}

/// The interface as the guest has to set it up, where it has one. Firecracker answers for the metadata
/// service on it, before anything reaches the tap. Without a network there is one for that alone.
pub(super) fn interface(machine: &MachineConfig, places: &Places) -> Option<Interface> {
    places.tap.as_ref()?;
    match (&machine.network, &machine.metadata) {
        (Some(nic), None) => Some(nic.interface.clone()),
        (Some(nic), Some(_)) => {
            let mut interface = nic.interface.clone();
            interface.routes.push(Route { destination: METADATA_ADDRESS.into(), prefix: 32, gateway: None });
            Some(interface)
        }
        (None, Some(_)) => {
            let addresses = vec![Address { address: GUEST_ADDRESS.into(), prefix: PREFIX }];
            Some(Interface { mac: MAC, mtu: None, addresses, routes: Vec::new() })
        }
        (None, None) => None,
    }
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
    use crate::hypervisor::{MachineOptions, nic::test_nic, test_machine};

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

    /// As in the sandbox of a host that has taps.
    fn tapped(machine: &MachineConfig) -> (Configuration, Option<Interface>) {
        let mut places = Places::inside(machine);
        places.tap.get_or_insert("tap0".into());
        (Configuration::of(machine, "quiet".into(), &places, 1), interface(machine, &places))
    }

    #[test]
    fn metadata_alone_has_a_network_of_its_own() {
        let machine = MachineConfig { metadata: Some(json!({ "name": "a" })), ..test_machine() };
        let (told, interface) = tapped(&machine);
        let body = json!({ "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "02:fc:00:00:00:01" });
        assert_eq!(to_value(told.network).unwrap(), body);
        assert_eq!(told.metadata.unwrap().data, json!({ "name": "a" }));
        let interface = interface.unwrap();
        assert_eq!((interface.mac, interface.addresses[0].prefix, interface.routes), (MAC, 30, Vec::new()));
        // Where there can be no tap.
        assert!(
            configuration(&machine, 1).network.is_none() && configuration(&machine, 1).metadata.is_none()
        );
        assert_eq!(tapped(&test_machine()).1, None);
    }

    #[test]
    fn metadata_is_served_on_the_machines_own_network() {
        let machine = MachineConfig { network: Some(test_nic()), ..test_machine() };
        let (told, interface) = tapped(&machine);
        let mut expected = test_nic().interface;
        assert_eq!((interface.as_ref(), told.metadata.is_none()), (Some(&expected), true));
        let body = json!({
            "iface_id": "eth0",
            "host_dev_name": "tap0",
            "guest_mac": "02:00:00:00:00:0a",
            "mtu": 1400,
        });
        assert_eq!(to_value(&told.network).unwrap(), body);
        let (with_metadata, interface) = tapped(&MachineConfig { metadata: Some(json!({})), ..machine });
        assert_eq!(with_metadata.network, told.network);
        let service = json!({ "network_interfaces": ["eth0"], "ipv4_address": "169.254.169.254" });
        let said = to_value(with_metadata.metadata.unwrap().service).unwrap();
        assert_eq!(said["network_interfaces"], service["network_interfaces"]);
        assert_eq!(said["ipv4_address"], service["ipv4_address"]);
        expected.routes.push(Route { destination: METADATA_ADDRESS.into(), prefix: 32, gateway: None });
        assert_eq!(interface, Some(expected));
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
