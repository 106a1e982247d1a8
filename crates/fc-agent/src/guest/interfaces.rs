//! The guest's network interfaces.

use std::{io, net::IpAddr};

use anyhow::Context as _;
use fcvm_proto::{Address, Interface, Route};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope},
    link::{LinkAttribute, LinkFlags, LinkMessage},
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use super::{netlink::Routes, settings};

/// The kernel makes it first.
const LOOPBACK: u32 = 1;
/// Marks the routes that are ours.
const OURS: RouteProtocol = RouteProtocol::Static;

/// Brings loopback up; the kernel gives it 127.0.0.1 and ::1.
pub(super) fn loopback() -> io::Result<()> {
    Routes::open()?.change(up(LOOPBACK, None))
}

/// Gives interfaces their addresses and routes, and brings them up. Those that were set up before, in
/// another way, have afterwards what they are to have now and nothing else.
///
/// # Errors
/// Where there is no such interface, or the kernel refuses.
pub(super) fn set_up(interfaces: &[Interface]) -> anyhow::Result<()> {
    if interfaces.is_empty() {
        return Ok(());
    }
    let kernel = Routes::open().context("failed to reach the kernel's network")?;
    let links = kernel.list(RouteNetlinkMessage::GetLink(LinkMessage::default()));
    let links = links.context("failed to list network interfaces")?;
    for interface in interfaces {
        let mac = text(interface.mac);
        let link = links.iter().find_map(|link| Link::with(link, interface.mac));
        let link = link.with_context(|| format!("the machine has no network interface {mac}"))?;
        link.configure(&kernel, interface)
            .with_context(|| format!("failed to configure network interface {mac}"))?;
    }
    Ok(())
}

/// An interface that there is.
#[derive(Debug)]
struct Link {
    index: u32,
    name: String,
}

impl Link {
    /// The one that the kernel tells of, if it has this hardware address.
    fn with(message: &RouteNetlinkMessage, mac: [u8; 6]) -> Option<Self> {
        let RouteNetlinkMessage::NewLink(link) = message else { return None };
        let has = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::Address(it) if *it == mac);
        link.attributes.iter().any(has).then_some(())?;
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        Some(Self { index: link.header.index, name: name? })
    }

    fn configure(&self, kernel: &Routes, interface: &Interface) -> anyhow::Result<()> {
        let ipv6 = settings::has_ipv6();
        if ipv6 {
            settings::ignore_advertisements(&self.name).context("failed to set IPv6's settings")?;
        }
        kernel.change(up(self.index, interface.mtu)).context("failed to bring it up")?;
        for stale in self.stale_addresses(kernel, interface).context("failed to list addresses")? {
            kernel.change(RouteNetlinkMessage::DelAddress(stale)).context("failed to remove an address")?;
        }
        // A user's kernel parameter may have turned IPv6 off, and with it only what needs it.
        let possible = |address: &IpAddr| ipv6 || address.is_ipv4();
        for address in interface.addresses.iter().filter(|it| possible(&it.address)) {
            let request = RouteNetlinkMessage::NewAddress(self.address(*address));
            kernel.put(request).with_context(|| format!("failed to add address {}", address.address))?;
        }
        for stale in self.stale_routes(kernel, interface).context("failed to list routes")? {
            kernel.change(RouteNetlinkMessage::DelRoute(stale)).context("failed to remove a route")?;
        }
        // A gateway may be where only another route leads.
        let (direct, indirect): (Vec<&Route>, Vec<_>) =
            interface.routes.iter().partition(|route| route.gateway.is_none());
        for route in direct.into_iter().chain(indirect).filter(|it| possible(&it.destination)) {
            let request = RouteNetlinkMessage::NewRoute(self.route(*route));
            kernel
                .put(request)
                .with_context(|| format!("failed to add route {}/{}", route.destination, route.prefix))?;
        }
        Ok(())
    }

    /// Addresses that it has and is not to have. What IPv6 makes of the link itself stays.
    fn stale_addresses(&self, kernel: &Routes, wanted: &Interface) -> io::Result<Vec<AddressMessage>> {
        let all = kernel.list(RouteNetlinkMessage::GetAddress(AddressMessage::default()))?;
        let stale = all.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message)
                if message.header.index == self.index
                    && message.header.scope != AddressScope::Link
                    && !wanted.addresses.iter().any(|address| is(&message, address)) =>
            {
                Some(message)
            }
            _ => None,
        });
        Ok(stale.collect())
    }

    /// Routes that we have made and that are not to be.
    fn stale_routes(&self, kernel: &Routes, wanted: &Interface) -> io::Result<Vec<RouteMessage>> {
        let mut stale = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            for message in kernel.list(RouteNetlinkMessage::GetRoute(request))? {
                let RouteNetlinkMessage::NewRoute(message) = message else { continue };
                let leads_here = message.attributes.contains(&RouteAttribute::Oif(self.index));
                if leads_here
                    && message.header.protocol == OURS
                    && !wanted.routes.iter().any(|route| leads(&message, route))
                {
                    stale.push(message);
                }
            }
        }
        Ok(stale)
    }

    fn address(&self, Address { address, prefix }: Address) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        message.header.prefix_len = prefix;
        message.header.index = self.index;
        if address.is_ipv6() {
            // Nobody else is on the link, so that it need not be asked who has the address.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        message
    }

    fn route(&self, Route { destination, prefix, gateway }: Route) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = OURS;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
        message.attributes = vec![RouteAttribute::Oif(self.index)];
        if prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(destination.into()));
        }
        message.attributes.extend(gateway.map(|gateway| RouteAttribute::Gateway(gateway.into())));
        message
    }
}

fn up(index: u32, mtu: Option<u32>) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes = mtu.map(LinkAttribute::Mtu).into_iter().collect();
    RouteNetlinkMessage::NewLink(link)
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// Whether what the kernel tells of is this address. Of IPv6 it does not say `Local`.
fn is(message: &AddressMessage, Address { address, prefix }: &Address) -> bool {
    let same = |attribute: &AddressAttribute| matches!(attribute, AddressAttribute::Local(it) | AddressAttribute::Address(it) if it == address);
    message.header.prefix_len == *prefix && message.attributes.iter().any(same)
}

/// Whether what the kernel tells of goes where this route does: it is replaced then.
fn leads(message: &RouteMessage, route: &Route) -> bool {
    let destination = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(it) => Some(it.clone()),
        _ => None,
    });
    message.header.address_family == family(route.destination)
        && message.header.destination_prefix_length == route.prefix
        && (route.prefix == 0 || destination == Some(route.destination.into()))
}

/// As people write it.
fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;
