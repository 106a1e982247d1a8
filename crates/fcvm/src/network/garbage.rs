//! What a bridged VM's killed process left in the host's kernel: its table, for a moment its link, and
//! settings. All else went with the namespace.
//!
//! Another VM, also one of another data directory, may have been given the same network since. Whoever
//! [holds](super::Reservations) the network is the one to remove what is there by its name.

use std::{io, path::Path, thread};

use rustix::process::geteuid;

use super::{
    Host as _, NetworkRecord, OUR_INTERFACES, Prefix, Reservations, Resource, forwarding,
    nft::{self, Place},
    plan::{LINK_PREFIX, link_name, network_of},
    rules, uplink,
};

/// Where bridged VMs of all data directories agree on what the host is set to.
pub(super) const SHARED: &str = "/run/fcvm";

/// Removes what the VM with this record left.
pub fn collect(record: &NetworkRecord) {
    if let Some(subnet) = record.subnet {
        apart(async move { remove(subnet).await });
        forwarding::restore(Path::new(SHARED));
    }
}

/// What VMs left of which there is no record any more: names of tables. With `Remove` they are removed.
#[must_use]
pub fn orphans(removal: Removal) -> Vec<String> {
    if !geteuid().is_root() {
        return Vec::new();
    }
    let orphans = apart(async move {
        // Without `nft` there are no tables of ours.
        let listed = nft::apply(&rules::list(), Place::Here).await.unwrap_or_default();
        let mut orphans = Vec::new();
        for name in rules::tables(&listed, OUR_INTERFACES) {
            let Some(subnet) = network_of(&name) else { continue };
            let gone = match removal {
                Removal::Real => remove(subnet).await,
                Removal::Dry => is_free(subnet),
            };
            if gone {
                orphans.push(name);
            }
        }
        orphans
    });
    if removal == Removal::Real {
        forwarding::restore(Path::new(SHARED));
    }
    orphans.unwrap_or_default()
}

/// Whether anything is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// It is.
    Real,
    /// It is only told.
    Dry,
}

fn is_free(subnet: Prefix) -> bool {
    Reservations::default().take(Resource::Subnet(subnet)).is_ok()
}

async fn remove(subnet: Prefix) -> bool {
    let mut ours = Reservations::default();
    let held = ours.take(Resource::Subnet(subnet)).is_ok();
    if held {
        debug_assert_eq!(subnet.length, LINK_PREFIX);
        uplink::remove(&link_name(subnet)).await;
    }
    held
}

/// In a runtime of its own, whether or not this thread has one.
pub(super) fn apart<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        io::Result::Ok(runtime.block_on(work))
    };
    match thread::spawn(run).join() {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::warn!(%error, "what networks left is not removed");
            None
        }
        Err(_) => None,
    }
}
