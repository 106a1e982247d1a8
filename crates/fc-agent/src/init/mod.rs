//! From the kernel's hands to a prepared root: what needs no plan.

mod cgroups;
mod cmdline;
mod devices;
mod disks;
mod modules;
mod mounts;
mod readahead;
mod timer;

use anyhow::Context as _;
use fcvm_proto::{Transport, session::LinkKey};

use crate::fault;

pub(crate) use disks::Disks;
pub(crate) use modules::DeferredModules;
pub(crate) use mounts::{image as mount_image, writable as mount_writable};

/// A guest with its devices, before the host has said anything.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Opens sessions with the host.
    pub(crate) key: LinkKey,
    /// What leads to the host.
    pub(crate) transport: Transport,
    /// The disks, or why there is no root: the host is told over the link.
    pub(crate) root: anyhow::Result<Disks>,
    /// What volumes need of the kernel.
    pub(crate) fuse: DeferredModules,
    /// What ends connections.
    pub(crate) diagnosis: DeferredModules,
    /// Nanoseconds since the kernel's start.
    pub(crate) started: u64,
}

/// Prepares everything that is the same in every guest.
///
/// # Errors
/// Where not even the link to the host can be had.
pub(crate) fn run() -> anyhow::Result<Guest> {
    let started = crate::guest::clock::since_boot();
    mounts::kernel_file_systems()?;
    let cmdline = std::fs::read_to_string("/proc/cmdline")?;
    fault::choose(cmdline::parameter(&cmdline, fault::PARAMETER));
    fault::reach("mounts");
    if let Err(error) = timer::check(&std::fs::read_to_string("/proc/interrupts")?) {
        // The host takes a panic as a boot that may do better the next time.
        panic!("{error}");
    }
    let key = cmdline::link_key(&cmdline)
        .with_context(|| format!("the kernel command line has no {}=KEY", LinkKey::PARAMETER))?;
    let transport = cmdline::transport(&cmdline)?;
    modules::load_for_boot()?;
    if transport == Transport::Vsock {
        modules::load_on_demand("vmw_vsock_virtio_transport")?;
    }
    let fuse = DeferredModules::open("fuse")?;
    let diagnosis = DeferredModules::open("tcp_diag")?;
    if let Err(error) = devices::start() {
        // The host sees a balloon that stays empty; an interface that is not there is told of later.
        tracing::warn!(error = format!("{error:#}"), "a device does not work");
    }
    // Before anything runs at the same time: see there.
    cgroups::prepare().context("failed to prepare control groups")?;
    let root = Disks::find().and_then(|disks| mounts::root(&disks).map(|()| disks));
    fault::reach("root");
    if root.is_ok() {
        readahead::start();
    }
    Ok(Guest { key, transport, root, fuse, diagnosis, started })
}

/// Whether this is a machine without a way to power off: one whose link is vsock.
pub(crate) fn ends_by_reset() -> bool {
    std::fs::read_to_string("/proc/cmdline").is_ok_and(|cmdline| {
        cmdline::transport(&cmdline).is_ok_and(|transport| transport == Transport::Vsock)
    })
}
