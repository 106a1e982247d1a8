//! What makes another guest of one that goes on from a snapshot: by system calls alone, as every program
//! that were started would make the clone late.

use std::{fs, io, os::fd::AsFd as _, path::Path};

use anyhow::Context as _;
use fcvm_proto::{Identity, Interface, Network, Restore};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{clock, connections, entropy, identity, interfaces};
use crate::exec::Running;

/// Where Podman keeps the files that a container has in its `/etc`.
pub(crate) const CONTAINERS: &str = "/run/containers/storage/overlay-containers";

/// Time and randomness first: whoever runs already needs them. `had` is what its interfaces were set up to be.
///
/// # Errors
/// Where the guest would not be what the host asked for.
pub(crate) fn apply(restore: &Restore, container: Option<&Running>, had: &[Interface]) -> anyhow::Result<()> {
    clock::set(restore.time_unix_nanos).context("failed to set the clock")?;
    entropy::add(&restore.entropy).context("failed to add entropy")?;
    entropy::renew().context("failed to renew the kernel's randomness")?;
    match connections::end() {
        Ok(count) => tracing::debug!(count, "connections were ended"),
        // A kernel need not be able to: their ends hear of it when they send something.
        Err(error) => tracing::debug!(%error, "connections are not ended"),
    }
    // Most clones have what they had, in a network of their own.
    if restore.network.interfaces != had {
        interfaces::set_up(&restore.network.interfaces)?;
    }
    let hostname = &restore.identity.hostname;
    if let Some(container) = container {
        let named = set_hostname_of(container, hostname);
        named.context("failed to set the container's host name")?;
    }
    Ok(())
}

/// The files that say who a guest is, its own and those of its container.
///
/// # Errors
/// Where one cannot be written.
pub(crate) fn write(restore: &Restore, container: Option<&Running>) -> anyhow::Result<()> {
    let Restore { identity, network, .. } = restore;
    identity::write(identity, network).context("failed to write the guest's identity")?;
    match container {
        Some(container) => write_for(&container.id, identity, network),
        None => Ok(()),
    }
}

/// The files that say to the container of that id who it is.
///
/// # Errors
/// Where one cannot be written.
pub(crate) fn write_for(container: &str, identity: &Identity, network: &Network) -> anyhow::Result<()> {
    let directory = Path::new(CONTAINERS).join(container).join("userdata");
    identity::write_for_container(&directory, identity, network)
        .context("failed to write the container's identity")
}

/// A container's host name is that of a namespace of its own: this thread enters it and comes back.
fn set_hostname_of(container: &Running, hostname: &str) -> io::Result<()> {
    let namespace = match fs::File::open(format!("/proc/{}/ns/uts", container.pid.as_raw_nonzero())) {
        // It has just ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        namespace => namespace?,
    };
    let ours = fs::File::open("/proc/thread-self/ns/uts")?;
    let kind = Some(LinkNameSpaceType::HostNameAndNISDomainName);
    move_into_link_name_space(namespace.as_fd(), kind)?;
    let set = rustix::system::sethostname(hostname.as_bytes());
    move_into_link_name_space(ours.as_fd(), kind)?;
    Ok(set?)
}
