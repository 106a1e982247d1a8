//! What Firecracker is told of a machine: decided first, then told.

use super::{
    api::{
        ApiError, BootSource, CacheType, Client, DeviceId, Drive, Entropy, IoEngine,
        MachineConfig as Processors, Vsock,
    },
    kernel, vsock,
};
use crate::hypervisor::{Access, Disk, HypervisorError, MachineConfig};

/// The guest's address on vsock: the first that is free, as each machine has a vsock of its own.
const GUEST_CID: u32 = 3;

/// The bodies of all requests before the start.
#[derive(Debug)]
pub(super) struct Configuration {
    processors: Processors,
    boot: BootSource,
    drives: Vec<Drive>,
    vsock: Vsock,
    entropy: Entropy,
}

impl Configuration {
    /// What makes this machine.
    ///
    /// # Errors
    /// Where Firecracker cannot have such a machine.
    pub(super) fn of(machine: &MachineConfig) -> Result<Self, HypervisorError> {
        let boot = BootSource {
            initrd_path: Some(machine.initrd.clone()),
            boot_args: Some(kernel::parameters(machine)?),
            ..BootSource::new(&machine.kernel)
        };
        Ok(Self {
            processors: Processors::new(machine.cpus, machine.memory_mib),
            boot,
            drives: machine.disks.iter().enumerate().map(|(index, disk)| drive(index, disk)).collect(),
            // Seen from the process's own directory.
            vsock: Vsock { guest_cid: GUEST_CID, uds_path: vsock::SOCKET.into() },
            entropy: Entropy::default(),
        })
    }

    /// Tells it. Firecracker reads the kernel at the start only, and opens disks at once; the guest
    /// sees them in this order.
    ///
    /// # Errors
    /// What it refuses.
    pub(super) async fn apply(&self, client: &Client) -> Result<(), ApiError> {
        client.put_machine_config(&self.processors).await?;
        client.put_boot_source(&self.boot).await?;
        for drive in &self.drives {
            client.put_drive(drive).await?;
        }
        client.put_vsock(&self.vsock).await?;
        client.put_entropy(&self.entropy).await
    }
}

fn drive(index: usize, disk: &Disk) -> Drive {
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
        ..Drive::new(id, &disk.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::test_machine;

    #[test]
    fn disks_keep_their_order_and_access() {
        let disk = |path: &str, access| Disk { serial: path.into(), path: path.into(), access };
        let disks = vec![
            disk("/base", Access::ReadOnly),
            disk("/scratch", Access::Ephemeral),
            disk("/kept", Access::Durable),
        ];
        let configuration = Configuration::of(&MachineConfig { disks, ..test_machine() }).unwrap();
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
}
