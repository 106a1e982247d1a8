//! The VM's own address on the host's loopback network.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{
    Allocation, Neighbour,
    port::{check_others, hold},
};
use crate::network::{Host, NetworkError, PortRecord, Resource};

/// Others' by custom: of systemd-resolved, and of the host's own name with Debian.
const OTHERS: [Ipv4Addr; 3] =
    [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54), Ipv4Addr::new(127, 0, 1, 1)];
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const LAST: Ipv4Addr = Ipv4Addr::new(127, 0, 255, 254);

/// At how many addresses a port may be taken: at more, it is so at every one.
const MOST_REFUSALS: usize = 256;

/// The first address that no other VM has and where all of these ports are free, with the ports there. The
/// addresses of `ports` are not known yet.
pub(super) fn take(
    ports: &[PortRecord],
    allocation: &mut Allocation,
    vms: &[Neighbour<'_>],
    host: &mut impl Host,
) -> Result<(), NetworkError> {
    check_everywhere(ports, vms)?;
    let taken: Vec<_> = vms.iter().filter_map(|vm| vm.network?.loopback).collect();
    let candidates = (u32::from(FIRST)..=u32::from(LAST)).map(Ipv4Addr::from);
    let mut first_refusal = None;
    let mut refusals = 0;
    for address in candidates.filter(|address| !taken.contains(address) && !OTHERS.contains(address)) {
        let resource = Resource::Loopback(address);
        match host.take(resource) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => continue,
            Err(source) => return Err(NetworkError::Reserve { resource, source }),
        }
        let ports: Vec<_> = ports
            .iter()
            .map(|port| PortRecord { host: SocketAddr::new(address.into(), port.host.port()), ..*port })
            .collect();
        match hold_all(&ports, vms, host) {
            Ok(()) => {
                allocation.network.loopback = Some(address);
                allocation.ports.extend(ports);
                return Ok(());
            }
            Err(error @ (NetworkError::PortInUse { .. } | NetworkError::PortOfVm { .. })) => {
                host.give_back(resource);
                first_refusal.get_or_insert(error);
                refusals += 1;
                if refusals == MOST_REFUSALS {
                    break;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Err(first_refusal.unwrap_or(NetworkError::NoLoopback))
}

/// Refuses what another VM has at all addresses, so that no other address would help.
fn check_everywhere(ports: &[PortRecord], vms: &[Neighbour<'_>]) -> Result<(), NetworkError> {
    for port in ports {
        let has = |other: &PortRecord| {
            other.protocol == port.protocol
                && other.host.port() == port.host.port()
                && other.host.ip().is_unspecified()
        };
        if let Some(vm) = vms.iter().find(|vm| vm.ports.iter().any(has)) {
            let host = SocketAddr::new(FIRST.into(), port.host.port());
            return Err(NetworkError::PortOfVm { host, protocol: port.protocol, vm: vm.name.to_owned() });
        }
    }
    Ok(())
}

/// Holds all of these ports, or none.
fn hold_all(ports: &[PortRecord], vms: &[Neighbour<'_>], host: &mut impl Host) -> Result<(), NetworkError> {
    for (index, port) in ports.iter().enumerate() {
        let held = check_others(port, vms).and_then(|()| hold(port, host));
        if let Err(error) = held {
            for port in &ports[..index] {
                host.give_back(Resource::Port(port.host, port.protocol));
            }
            return Err(error);
        }
    }
    Ok(())
}

/// The VM's address, taken where it has none yet.
pub(super) fn of(
    allocation: &mut Allocation,
    vms: &[Neighbour<'_>],
    host: &mut impl Host,
) -> Result<IpAddr, NetworkError> {
    if allocation.network.loopback.is_none() {
        take(&[], allocation, vms, host)?;
    }
    Ok(allocation.network.loopback.ok_or(NetworkError::NoLoopback)?.into())
}
