//! A VM of this process.

use std::path::{Path, PathBuf};

use super::{Registry, StateError, VmName, VmState};
use crate::{
    network::{
        Allocation, Neighbour, NetworkError, Others, Protocol, Request, Reservations, Route,
        allocate::{allocate, publish_exposed},
    },
    storage::DataDir,
};

/// A recorded VM of this process. Dropped, everything of it is removed.
#[derive(Debug)]
pub struct Claim {
    registry: Registry,
    state: VmState,
    directory: PathBuf,
    runtime: PathBuf,
    /// What of the host its network has.
    reservations: Reservations,
    /// Whether record and log outlive this.
    kept: bool,
}

impl Claim {
    /// Records a VM and makes its directories; to be called with the lock held.
    pub(super) fn make(registry: &Registry, state: VmState) -> Result<Self, StateError> {
        // From here on dropping the claim removes whatever was made.
        let claim = Self {
            registry: registry.clone(),
            directory: registry.directory(&state.id),
            runtime: registry.runtime_dir(&state.id),
            state,
            reservations: Reservations::default(),
            kept: false,
        };
        registry.write(None, &claim.state)?;
        crate::failpoint::reach("recorded");
        fs_err::create_dir_all(&claim.directory)
            .map_err(|source| StateError::Create { path: claim.directory.clone(), source })?;
        crate::failpoint::reach("directory-made");
        registry.create_runtime_dir(&claim.state.id)?;
        crate::failpoint::reach("claimed");
        Ok(claim)
    }

    /// The VM as recorded.
    #[must_use]
    pub fn state(&self) -> &VmState {
        &self.state
    }

    /// The VM's own files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The data directory that it is in.
    #[must_use]
    pub fn data(&self) -> &DataDir {
        &self.registry.data
    }

    /// The VM's sockets.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime
    }

    /// Changes the record.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn update(&mut self, change: impl FnOnce(&mut VmState)) -> Result<(), StateError> {
        let _lock = self.registry.lock()?;
        let old = self.state.clone();
        change(&mut self.state);
        self.registry.write(Some(&old), &self.state)
    }

    /// Gives the VM what its network needs of what there is once only, and records it; where it has that already,
    /// only ports for what its image exposes and is not published yet. It is had as long as the claim, or as
    /// what [`network`](Self::network) gives away.
    ///
    /// # Errors
    /// Where something cannot be had, or the record cannot be written.
    pub fn allocate(
        &mut self,
        request: &Request,
        exposed: &[(u16, Protocol)],
        routes: &[Route],
    ) -> Result<(), StateError> {
        let lock = self.registry.lock()?;
        let vms = self.registry.read_all()?;
        // Of a dead one nothing is taken, whether or not its record is still there.
        let vms = vms.iter().filter(|vm| vm.id != self.state.id && vm.is_alive());
        let vms: Vec<_> = vms
            .map(|vm| Neighbour { name: vm.name.as_str(), network: vm.network.as_ref(), ports: &vm.ports })
            .collect();
        let others = Others { vms: &vms, routes };
        let mut allocation = match &self.state.network {
            Some(network) => Allocation { network: network.clone(), ports: self.state.ports.clone() },
            None => allocate(request, &self.state.id, others, &mut self.reservations)
                .map_err(NetworkError::with_holder)?,
        };
        publish_exposed(&mut allocation, exposed, others, &mut self.reservations)
            .map_err(NetworkError::with_holder)?;
        self.reservations.keep(&allocation);
        let old = self.state.clone();
        (self.state.network, self.state.ports) = (Some(allocation.network), allocation.ports);
        self.registry.write(Some(&old), &self.state)?;
        drop(lock);
        crate::failpoint::reach("network-allocated");
        Ok(())
    }

    /// What a network is made of: the record, the directory of sockets, and what of the host the VM has.
    pub fn network(&mut self) -> (&VmState, &Path, &mut Reservations) {
        (&self.state, &self.runtime, &mut self.reservations)
    }

    /// Gives the VM another name.
    ///
    /// # Errors
    /// Where it is taken, or the record cannot be written.
    pub fn rename(&mut self, name: &VmName) -> Result<(), StateError> {
        self.registry.rename(&mut self.state, name)
    }

    /// The VM has ended, like this: its record and log are kept where they are to be, the rest is removed.
    ///
    /// # Errors
    /// Where the record cannot be written; the next command then tries again.
    pub fn finish(mut self, exit_code: Option<u8>, error: Option<String>) -> Result<(), StateError> {
        let old = self.state.clone();
        (self.state.exit_code, self.state.error) = (exit_code, error);
        let _lock = self.registry.lock()?;
        if self.state.is_kept() {
            self.kept = true;
            crate::failpoint::reach("keeping");
            return self.registry.keep(&old, &mut self.state);
        }
        self.state.end();
        self.registry.tell(Some(&old), Some(&self.state));
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.registry.remove(&self.state)
        {
            tracing::warn!(%error, vm = %self.state.id, "left for the next clean-up");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        network::{Driver, Mode},
        state::testing,
    };

    fn claim(registry: &Registry, name: &str) -> Claim {
        registry.claim(testing::vm(Some(name))).unwrap()
    }

    fn request(publish: &str) -> Request {
        let publish = vec![publish.parse().unwrap()];
        Request { publish, ..Request::new(Mode::Rootless, Driver::Pasta) }
    }

    #[test]
    fn what_is_allocated_is_on_record_and_nobody_elses_until_the_end() {
        let root = tempfile::tempdir().unwrap();
        let registry = testing::registry(root.path());
        let mut first = claim(&registry, "first");
        // Of this machine's ports, those that nobody has just now.
        first.allocate(&request("80"), &[], &[]).unwrap();
        first.allocate(&request("80"), &[(80, Protocol::Tcp), (53, Protocol::Udp)], &[]).unwrap();
        assert_eq!(registry.get(&first.state().id).as_ref(), Some(first.state()));
        let [dns, web] = first.state().ports[..] else { panic!("{:?}", first.state().ports) };
        assert_eq!(
            (dns.guest, dns.protocol, web.guest, web.protocol),
            (53, Protocol::Udp, 80, Protocol::Tcp)
        );
        let address = first.state().network.as_ref().unwrap().loopback.unwrap();
        assert!(web.host.ip() == address && dns.host.ip() == address);

        let wanted = request(&format!("{}:80", web.host));
        let mut second = claim(&registry, "second");
        let error = second.allocate(&wanted, &[], &[]).unwrap_err();
        assert_eq!(error.to_string(), format!("port {}/tcp is published by VM `first`", web.host));
        assert!(second.state().network.is_none() && error.hint().is_some());
        // Of a VM whose owner is dead it is free; here its socket still has it, and that is told.
        first.update(|state| state.owner.start_time += 1).unwrap();
        let error = second.allocate(&wanted, &[], &[]).unwrap_err().to_string();
        assert!(
            error.contains("is in use by `") && error.contains(&std::process::id().to_string()),
            "{error}"
        );
        drop(first);
        second.allocate(&wanted, &[], &[]).unwrap();
        assert_eq!(second.state().ports[0].host, web.host);
    }
}
