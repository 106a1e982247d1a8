//! What makes another guest of one that goes on from a snapshot: by system calls alone, as every program
//! that were started would make the clone late.

use std::{
    fs::File,
    io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use fcvm_proto::{Identity, Interface, Network, Restore};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{clock, connections::Connections, entropy::Pool, identity::Files, interfaces};
use crate::exec::Running;

/// Where Podman keeps the files that a container has in its `/etc`.
pub(crate) const CONTAINERS: &str = "/run/containers/storage/overlay-containers";

/// What a restoration needs, opened before the snapshot is made: whatever a kernel does for the first time is slow
/// where its code is translated, and to look for a file is most of what it takes to write it.
#[derive(Debug)]
pub(crate) struct Readiness {
    pool: Pool,
    /// Not where the kernel cannot tell of connections: their ends hear of it when they send something.
    connections: Option<Connections>,
    files: Files,
    container: Option<Named>,
}

/// A container as one that has names.
#[derive(Debug)]
struct Named {
    id: String,
    files: Files,
    /// Its namespace of host names, and ours.
    namespaces: [File; 2],
}

impl Named {
    fn find(container: &Running) -> io::Result<Self> {
        let theirs = File::open(format!("/proc/{}/ns/uts", container.pid.as_raw_nonzero()))?;
        let namespaces = [theirs, File::open("/proc/thread-self/ns/uts")?];
        Ok(Self {
            id: container.id.clone(),
            files: Files::of_container(&userdata(&container.id))?,
            namespaces,
        })
    }

    /// This thread enters it and comes back.
    fn set_hostname(&self, hostname: &str) -> io::Result<()> {
        let [theirs, ours] = &self.namespaces;
        let kind = Some(LinkNameSpaceType::HostNameAndNISDomainName);
        move_into_link_name_space(theirs.as_fd(), kind)?;
        let set = rustix::system::sethostname(hostname.as_bytes());
        move_into_link_name_space(ours.as_fd(), kind)?;
        Ok(set?)
    }
}

impl Readiness {
    /// For a guest with this container.
    ///
    /// # Errors
    /// Where something cannot be opened.
    pub(crate) fn open(container: Option<&Running>) -> anyhow::Result<Self> {
        let connections = Connections::open()
            .map_err(|error| tracing::debug!(%error, "connections will not be ended"))
            .ok();
        let container = match container.map(Named::find) {
            // It has just ended.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
            named => named.transpose().context("failed to open what names the container")?,
        };
        let pool = Pool::open().context("failed to open the kernel's pool")?;
        let files = Files::own().context("failed to open the guest's identity")?;
        Ok(Self { pool, connections, files, container })
    }

    /// Whether it is for this container.
    pub(crate) fn is_for(&self, container: Option<&Running>) -> bool {
        self.container.as_ref().map(|named| &named.id) == container.map(|running| &running.id)
    }

    /// Gives it its time and randomness, which whoever runs already needs.
    ///
    /// # Errors
    /// The kernel's.
    pub(crate) fn renew(&self, restore: &Restore) -> anyhow::Result<()> {
        clock::set(restore.time_unix_nanos).context("failed to set the clock")?;
        self.pool.add(&restore.entropy).context("failed to add entropy")?;
        self.pool.renew().context("failed to renew the kernel's randomness")
    }

    /// Has the guest be all the rest. `had` is what its interfaces were set up to be.
    ///
    /// # Errors
    /// Where the guest would not be what the host asked for.
    pub(crate) fn apply(&self, restore: &Restore, had: &[Interface]) -> anyhow::Result<()> {
        let Restore { identity, network, .. } = restore;
        match self.connections.as_ref().map(Connections::end) {
            Some(Ok(count)) => tracing::debug!(count, "connections were ended"),
            Some(Err(error)) => tracing::debug!(%error, "connections are not ended"),
            None => {}
        }
        // Most clones have what they had, in a network of their own.
        if network.interfaces != had {
            interfaces::set_up(&network.interfaces)?;
        }
        rustix::system::sethostname(identity.hostname.as_bytes()).context("failed to set the host name")?;
        self.files.write(identity, network).context("failed to write the guest's identity")?;
        if let Some(named) = &self.container {
            named.set_hostname(&identity.hostname).context("failed to set the container's host name")?;
            named.files.write(identity, network).context("failed to write the container's identity")?;
        }
        Ok(())
    }
}

fn userdata(container: &str) -> PathBuf {
    Path::new(CONTAINERS).join(container).join("userdata")
}

/// Has the files that say to the container of that id who it is say this.
///
/// # Errors
/// Where one cannot be written.
pub(crate) fn write_for(container: &str, identity: &Identity, network: &Network) -> anyhow::Result<()> {
    Files::of_container(&userdata(container))
        .and_then(|files| files.write(identity, network))
        .context("failed to write the container's identity")
}
