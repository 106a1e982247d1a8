//! The network between the host and a bridged VM: four addresses of a pool, of which the second is the host's
//! and the third the VM's.

use std::{
    collections::HashSet,
    io,
    net::{IpAddr, Ipv4Addr},
};

use super::Others;
use crate::network::{Host, NetworkError, Prefix, Request, Resource};

/// Bits of such a network.
const LENGTH: u8 = 30;

/// The VM's end of the network that an address is in.
fn vm_end(address: Ipv4Addr) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(address) & !3 | 2)
}

fn network_of(address: Ipv4Addr) -> Prefix {
    Prefix::of(address.into(), LENGTH)
}

/// The one that is asked for, or the first that is free.
pub(super) fn take(
    request: &Request,
    others: Others<'_>,
    host: &mut impl Host,
) -> Result<Prefix, NetworkError> {
    let pool = request.pool;
    let foreign = |route: &&crate::network::Route| !route.is_ours() && route.network.overlaps(&pool);
    if let Some(route) = others.routes.iter().find(foreign) {
        let (route, interface) = (route.network, route.interface.clone());
        return Err(NetworkError::PoolOverlaps { pool, route, interface });
    }
    match request.address {
        Some(address) => take_given(address, pool, others, host),
        None => take_free(pool, others, host),
    }
}

fn take_given(
    address: Ipv4Addr,
    pool: Prefix,
    others: Others<'_>,
    host: &mut impl Host,
) -> Result<Prefix, NetworkError> {
    if !pool.contains(address.into()) {
        return Err(NetworkError::AddressOutside { address, pool });
    }
    if address != vm_end(address) {
        return Err(NetworkError::AddressOfHost { address, near: vm_end(address) });
    }
    let subnet = network_of(address);
    let in_use = |holder: String| NetworkError::AddressInUse { address, holder };
    let has = |vm: &&super::Neighbour<'_>| {
        vm.network.and_then(|network| network.subnet).is_some_and(|other| other.overlaps(&subnet))
    };
    if let Some(vm) = others.vms.iter().find(has) {
        return Err(in_use(format!("VM `{}`", vm.name)));
    }
    if let Some(route) = others.routes.iter().find(|route| route.network.overlaps(&subnet)) {
        return Err(in_use(format!("another VM, at `{}`", route.interface)));
    }
    let resource = Resource::Subnet(subnet);
    match host.take(resource) {
        Ok(()) => Ok(subnet),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(in_use("another VM".into())),
        Err(source) => Err(NetworkError::Reserve { resource, source }),
    }
}

fn take_free(pool: Prefix, others: Others<'_>, host: &mut impl Host) -> Result<Prefix, NetworkError> {
    let exhausted = NetworkError::PoolExhausted { pool };
    let IpAddr::V4(first) = pool.address else { return Err(exhausted) };
    let recorded = others.vms.iter().filter_map(|vm| vm.network?.subnet);
    // VMs of another data directory are not on record here; their routes are.
    let routed = others.routes.iter().filter(|route| route.is_ours()).map(|route| route.network);
    let taken: HashSet<_> = recorded.chain(routed).map(|other| Prefix::of(other.address, LENGTH)).collect();
    let count = 1u32.checked_shl(u32::from(LENGTH.saturating_sub(pool.length))).unwrap_or(0);
    for index in 0..count {
        let subnet = network_of(Ipv4Addr::from(u32::from(first) | index << 2));
        if taken.contains(&subnet) {
            continue;
        }
        let resource = Resource::Subnet(subnet);
        match host.take(resource) {
            Ok(()) => return Ok(subnet),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(source) => return Err(NetworkError::Reserve { resource, source }),
        }
    }
    Err(exhausted)
}
