//! Published ports: those that are given, and those of which any will do.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Allocation, MOST_PORTS, Neighbour, loopback, refused};
use crate::network::{
    Driver, Host, HostPort, Mode, NetworkError, NetworkRecord, PortRecord, Protocol, Publish, Request,
    Resource,
};

/// Where any port is taken from: those that Linux gives to clients, and others leave alone.
const FIRST_ANY: u16 = 32768;
const LAST_ANY: u16 = 60999;

/// A port of the host that is given, and the guest's. Without an address it is at the VM's own.
struct Given {
    address: Option<IpAddr>,
    port: PortRecord,
}

/// The ports that are given; those without an address have a placeholder in its place.
fn given(request: &Request) -> impl Iterator<Item = Given> {
    request.publish.iter().flat_map(|publish| {
        let HostPort::Ports(ports) = publish.host else { return Vec::new() };
        let address = publish.address.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let pairs = ports.iter().zip(publish.guest.iter());
        pairs
            .map(|(host, guest)| Given {
                address: publish.address,
                port: PortRecord { guest, protocol: publish.protocol, host: SocketAddr::new(address, host) },
            })
            .collect()
    })
}

/// Refuses what no host could do.
pub(super) fn check(request: &Request) -> Result<(), NetworkError> {
    let count: usize = request.publish.iter().map(|publish| publish.guest.count()).sum();
    if count > MOST_PORTS {
        return Err(NetworkError::TooManyPorts { count });
    }
    let mut seen: HashMap<_, Vec<Given>> = HashMap::new();
    for one in given(request) {
        let (port, protocol) = (one.port.host.port(), one.port.protocol);
        let same = seen.entry((port, protocol)).or_default();
        for other in &*same {
            if overlap(one.address, other.address) {
                return Err(NetworkError::PublishedTwice { port, protocol });
            }
            if by_number_alone(request.mode, request.driver) && one.port.guest != other.port.guest {
                let (first, second) = (other.port.guest, one.port.guest);
                return Err(NetworkError::OnePortTwoGuests { port, protocol, first, second });
            }
        }
        same.push(one);
    }
    Ok(())
}

/// Whether a port of the host leads to the same one of the guest at whatever address it is.
fn by_number_alone(mode: Mode, driver: Driver) -> bool {
    mode == Mode::Rootless && driver != Driver::Slirp4netns
}

/// Whether two addresses of one request have an address in common. Without one it is a loopback address.
fn overlap(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    let covers = |a: Option<IpAddr>, b: Option<IpAddr>| {
        // Sockets of IPv6 are ours for that alone, so that a port can be published at `0.0.0.0` and `::`.
        a == b || a.is_some_and(|a| a.is_unspecified() && a.is_ipv4() == b.is_none_or(|b| b.is_ipv4()))
    };
    covers(a, b) || covers(b, a)
}

/// Takes the ports that are given.
pub(super) fn take_given(
    request: &Request,
    allocation: &mut Allocation,
    vms: &[Neighbour<'_>],
    host: &mut impl Host,
) -> Result<(), NetworkError> {
    let mut own = Vec::new();
    for one in given(request) {
        if one.address.is_none() {
            own.push(one.port);
            continue;
        }
        check_others(&one.port, vms)?;
        hold(&one.port, host)?;
        allocation.ports.push(one.port);
    }
    if own.is_empty() { Ok(()) } else { loopback::take(&own, allocation, vms, host) }
}

/// Takes ports where any will do.
pub(super) fn take_any(
    request: &Request,
    allocation: &mut Allocation,
    vms: &[Neighbour<'_>],
    host: &mut impl Host,
) -> Result<(), NetworkError> {
    let any = request.publish.iter().filter(|publish| publish.host == HostPort::Any);
    any.into_iter().try_for_each(|publish| take_range(publish, allocation, vms, host))
}

/// Takes any port for one of the guest's, at the VM's own address.
pub(super) fn take_one(
    guest: u16,
    protocol: Protocol,
    allocation: &mut Allocation,
    vms: &[Neighbour<'_>],
    host: &mut impl Host,
) -> Result<(), NetworkError> {
    let guest = crate::network::Ports { first: guest, last: guest };
    take_range(&Publish { address: None, host: HostPort::Any, guest, protocol }, allocation, vms, host)
}

/// Takes any ports in a row: from a random one on, the first that are free.
fn take_range(
    publish: &Publish,
    allocation: &mut Allocation,
    vms: &[Neighbour<'_>],
    host: &mut impl Host,
) -> Result<(), NetworkError> {
    let address = match publish.address {
        Some(address) => address,
        None => loopback::of(allocation, vms, host)?,
    };
    let count = publish.guest.count();
    let none = NetworkError::NoFreePort { count, address };
    // How many places there are for the first.
    let Some(places) =
        usize::from(LAST_ANY - FIRST_ANY + 1).checked_sub(count - 1).filter(|places| *places > 0)
    else {
        return Err(none);
    };
    let places = u16::try_from(places).expect("they are some of the ports");
    let mut random = [0; 4];
    crate::random::fill(&mut random).map_err(NetworkError::Random)?;
    let start =
        u16::try_from(u32::from_ne_bytes(random) % u32::from(places)).expect("it is less than places");
    let mut tried = 0;
    while tried < places {
        let first = FIRST_ANY + (start + tried) % places;
        match hold_range(first, address, publish, allocation, vms, host)? {
            None => return Ok(()),
            // All that have the taken one in them are skipped, as far as they come one after the other.
            Some(taken) => tried += (taken - first + 1).min(places - (start + tried) % places),
        }
    }
    Err(none)
}

/// Holds ports in a row, or none of them: then it is told which one is taken.
fn hold_range(
    first: u16,
    address: IpAddr,
    publish: &Publish,
    allocation: &mut Allocation,
    vms: &[Neighbour<'_>],
    host: &mut impl Host,
) -> Result<Option<u16>, NetworkError> {
    let protocol = publish.protocol;
    let held = allocation.ports.len();
    for (number, guest) in (first..).zip(publish.guest.iter()) {
        let port = PortRecord { guest, protocol, host: SocketAddr::new(address, number) };
        let free = is_free(&port, allocation, vms)
            && match hold(&port, host) {
                Ok(()) => true,
                Err(NetworkError::PortInUse { .. }) => false,
                Err(error) => return Err(error),
            };
        if !free {
            for port in allocation.ports.drain(held..) {
                host.give_back(Resource::Port(port.host, protocol));
            }
            return Ok(Some(number));
        }
        allocation.ports.push(port);
    }
    Ok(None)
}

/// Whether neither this VM nor another has a port.
fn is_free(port: &PortRecord, allocation: &Allocation, vms: &[Neighbour<'_>]) -> bool {
    let NetworkRecord { mode, driver, .. } = allocation.network;
    let alone = driver.is_some_and(|driver| by_number_alone(mode, driver));
    let in_the_way = |own: &&PortRecord| {
        conflict(own, port)
            || (alone
                && own.protocol == port.protocol
                && own.host.port() == port.host.port()
                && own.guest != port.guest)
    };
    !allocation.ports.iter().any(|own| in_the_way(&own)) && check_others(port, vms).is_ok()
}

/// Refuses what another VM has.
pub(super) fn check_others(port: &PortRecord, vms: &[Neighbour<'_>]) -> Result<(), NetworkError> {
    let holder = vms.iter().find(|vm| vm.ports.iter().any(|other| conflict(other, port)));
    holder.map_or(Ok(()), |vm| {
        Err(NetworkError::PortOfVm { host: port.host, protocol: port.protocol, vm: vm.name.to_owned() })
    })
}

/// Whether only one of two ports can be had. What listens at `::` may well do so for IPv4, too.
fn conflict(a: &PortRecord, b: &PortRecord) -> bool {
    let covers = |a: IpAddr, b: IpAddr| a == b || (a.is_unspecified() && (a.is_ipv6() || b.is_ipv4()));
    let (of_a, of_b) = (a.host.ip(), b.host.ip());
    a.protocol == b.protocol && a.host.port() == b.host.port() && (covers(of_a, of_b) || covers(of_b, of_a))
}

/// Takes a port of the host.
pub(super) fn hold(port: &PortRecord, host: &mut impl Host) -> Result<(), NetworkError> {
    let resource = Resource::Port(port.host, port.protocol);
    host.take(resource).map_err(|error| refused(port.host, port.protocol, error))
}
