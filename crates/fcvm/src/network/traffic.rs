//! How much has passed a guest's interface.

use procfs::process::Process;

use super::layout::TAP;

/// Bytes since the VM's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    /// That the guest received.
    pub received: u64,
    /// That it sent.
    pub sent: u64,
}

/// Of the guest whose hypervisor is this process; `None` where it has no tap.
#[must_use]
pub fn moved(hypervisor: i32) -> Option<Moved> {
    let devices = Process::new(hypervisor).ok()?.dev_status().ok()?;
    // What the kernel receives from a tap, the guest has sent.
    devices.get(TAP).map(|tap| Moved { received: tap.sent_bytes, sent: tap.recv_bytes })
}
