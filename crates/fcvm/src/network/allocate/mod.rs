//! What a VM gets of what there is once only: decided from what others have, and taken from the host.
//!
//! To be called with the lock of all VMs' records held. VMs of other data directories are known by what the host
//! refuses to give.

mod loopback;
mod port;
mod subnet;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr};

use super::{
    Holder, Host, MacAddress, Mode, NetworkError, NetworkRecord, PortRecord, Protocol, Request, Route,
};
use crate::state::VmId;

/// Most ports that a VM publishes: each takes a socket, and a rule or a place in another program.
pub const MOST_PORTS: usize = 1024;

/// Another VM that lives, and what it has.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its network, where it has one already.
    pub network: Option<&'a NetworkRecord>,
    /// Its published ports.
    pub ports: &'a [PortRecord],
}

/// What a VM has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Its addresses.
    pub network: NetworkRecord,
    /// Its published ports.
    pub ports: Vec<PortRecord>,
}

/// What others have.
#[derive(Debug, Clone, Copy)]
pub struct Others<'a> {
    /// Other VMs that live.
    pub vms: &'a [Neighbour<'a>],
    /// The host's routes.
    pub routes: &'a [Route],
}

/// Refuses what no host could give.
///
/// # Errors
/// Too many ports, or a port of the host that is published twice.
pub fn check(request: &Request) -> Result<(), NetworkError> {
    port::check(request)
}

/// Gives a VM what it asks for.
///
/// # Errors
/// Where something cannot be had. What was taken of the host until then is still taken.
pub fn allocate(
    request: &Request,
    id: &VmId,
    others: Others<'_>,
    host: &mut impl Host,
) -> Result<Allocation, NetworkError> {
    check(request)?;
    let mut allocation = Allocation {
        network: NetworkRecord {
            mode: request.mode,
            driver: (request.mode == Mode::Rootless).then_some(request.driver),
            loopback: None,
            subnet: None,
            mac: request.mac.unwrap_or_else(|| mac_of(id)),
        },
        ports: Vec::new(),
    };
    if request.mode == Mode::Bridged {
        allocation.network.subnet = Some(subnet::take(request, others, host)?);
    }
    port::take_given(request, &mut allocation, others.vms, host)?;
    port::take_any(request, &mut allocation, others.vms, host)?;
    allocation.ports.sort_unstable();
    Ok(allocation)
}

/// Gives a VM ports for what its image exposes and is not yet published.
///
/// # Errors
/// Where none can be had. What was taken of the host until then is still taken.
pub fn publish_exposed(
    allocation: &mut Allocation,
    exposed: &[(u16, Protocol)],
    others: Others<'_>,
    host: &mut impl Host,
) -> Result<(), NetworkError> {
    for &(guest, protocol) in exposed {
        if allocation.ports.iter().any(|port| port.guest == guest && port.protocol == protocol) {
            continue;
        }
        if allocation.ports.len() >= MOST_PORTS {
            return Err(NetworkError::TooManyPorts { count: exposed.len() });
        }
        port::take_one(guest, protocol, allocation, others.vms, host)?;
    }
    allocation.ports.sort_unstable();
    Ok(())
}

/// The address of a VM's interface: locally administered, and the same as long as the VM lives.
fn mac_of(id: &VmId) -> MacAddress {
    let number = u32::from_str_radix(&id.as_str()[..8], 16).expect("an id is of hex digits");
    let [a, b, c, d] = number.to_be_bytes();
    MacAddress([0x02, 0xfc, a, b, c, d])
}

/// The host's answer to who wanted a port.
pub(super) fn refused(host: SocketAddr, protocol: Protocol, error: io::Error) -> NetworkError {
    match error.kind() {
        io::ErrorKind::AddrInUse => NetworkError::PortInUse { host, protocol, holder: Holder::Unknown },
        io::ErrorKind::PermissionDenied => NetworkError::PortDenied { host, protocol },
        io::ErrorKind::AddrNotAvailable => NetworkError::NoAddress { address: host.ip() },
        _ => NetworkError::Reserve { resource: super::Resource::Port(host, protocol), source: error },
    }
}

impl NetworkError {
    /// The same, with who has the port where that was not known yet.
    #[must_use]
    pub fn with_holder(self) -> Self {
        match self {
            Self::PortInUse { host, protocol, holder: Holder::Unknown } => {
                Self::PortInUse { host, protocol, holder: Holder::of(host, protocol) }
            }
            error => error,
        }
    }
}
