//! What a VM's network is to be: decided, before anything is made.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fcvm_proto::{Address, Interface, Route};

use super::{
    Driver, Egress, Facts, Mode, NetworkRecord, OUR_INTERFACES, PortRecord, Prefix, Protocol, Request,
    layout::{
        GATEWAY, GATEWAY_V6, GUEST, GUEST_V6, LONG_PACKETS, PREFIX, PREFIX_V6, ROOTLESS_PREFIX_V6,
        ROOTLESS_V6, USUAL_PACKETS,
    },
    rules::Forward,
};

/// How many ports a bridged VM's namespace can have beside those of the same number.
const RELAYS: std::ops::RangeInclusive<u16> = 20_000..=29_999;

/// The shortest packets of IPv6: RFC 8200.
const LEAST_V6: u16 = 1280;

/// The decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What makes the uplink.
    pub uplink: Uplink,
    /// Where ports lead.
    pub forwards: Vec<Forward>,
    /// The longest packets of the guest.
    pub mtu: u16,
    /// Whether the guest has IPv6.
    pub has_v6: bool,
    /// Networks to which no guest goes.
    pub forbidden: Vec<Prefix>,
}

/// What makes the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uplink {
    /// A link to the host.
    Veth(Link),
    /// pasta or slirp4netns, in the namespace.
    Process(Driver),
    /// passt, behind a socket, and no namespace.
    Socket,
}

/// A link between the host and a VM's namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Of the host's end, and of the host's table.
    pub name: String,
    /// The host's addresses and those of the namespace: IPv4, and IPv6 where there is any.
    pub addresses: Vec<(IpAddr, IpAddr)>,
}

/// Bits of a link's network.
pub const LINK_PREFIX: u8 = 30;
/// The same for IPv6.
pub const LINK_PREFIX_V6: u8 = 126;

/// Decides; `None` for a VM without a network.
#[must_use]
pub fn plan(request: &Request, record: &NetworkRecord, ports: &[PortRecord], host: Facts) -> Option<Plan> {
    let usual = if record.mode == Mode::Bridged { host.mtu.unwrap_or(USUAL_PACKETS) } else { LONG_PACKETS };
    let mtu = request.mtu.unwrap_or(usual);
    // IPv6 has no shorter packets.
    let has_v6 = host.has_v6 && mtu >= LEAST_V6;
    let uplink = match (record.mode, record.driver, record.subnet) {
        (Mode::None, ..) => return None,
        (Mode::Bridged, _, Some(subnet)) => Uplink::Veth(link(subnet, has_v6)),
        // A record without one is no bridged VM's.
        (Mode::Bridged, _, None) => return None,
        (Mode::Rootless, Some(Driver::Passt), _) => Uplink::Socket,
        (Mode::Rootless, driver, _) => Uplink::Process(driver.unwrap_or(Driver::Pasta)),
    };
    let forbidden = match uplink {
        Uplink::Veth(_) => vec![request.pool],
        // Where nobody is but the uplink's process: slirp4netns has the host's loopback there.
        Uplink::Process(_) => {
            vec![Prefix { address: ROOTLESS_V6.into(), length: ROOTLESS_PREFIX_V6 }]
        }
        Uplink::Socket => Vec::new(),
    };
    Some(Plan { uplink, forwards: forwards(ports), mtu, has_v6, forbidden })
}

impl Plan {
    /// The guest's interface.
    #[must_use]
    pub fn interface(&self, mac: [u8; 6]) -> Interface {
        let mut addresses = vec![Address { address: GUEST.into(), prefix: PREFIX }];
        let anywhere =
            |destination: IpAddr, gateway: IpAddr| Route { destination, prefix: 0, gateway: Some(gateway) };
        let mut routes = vec![anywhere(Ipv4Addr::UNSPECIFIED.into(), GATEWAY.into())];
        if self.has_v6 {
            addresses.push(Address { address: GUEST_V6.into(), prefix: PREFIX_V6 });
            routes.push(anywhere(Ipv6Addr::UNSPECIFIED.into(), GATEWAY_V6.into()));
        }
        Interface { mac, mtu: Some(self.mtu.into()), addresses, routes }
    }

    /// The gateway's addresses, by the bits of its networks.
    #[must_use]
    pub fn gateways(&self) -> Vec<(IpAddr, u8)> {
        let mut gateways = vec![(GATEWAY.into(), PREFIX)];
        if self.has_v6 {
            gateways.push((GATEWAY_V6.into(), PREFIX_V6));
        }
        gateways
    }
}

impl Egress {
    /// Whether DNS decides where the guest may go.
    #[must_use]
    pub fn has_names(&self) -> bool {
        let is_name = |destination: &super::Destination| matches!(destination, super::Destination::Name(_));
        matches!(self, Self::Only(destinations) if destinations.iter().any(is_name))
    }
}

/// The link in a /30 of the pool: the host has the first address, the namespace the second. Its name is the
/// network's, so that the kernel itself gives it to one VM only, whatever data directory that is of.
fn link(subnet: Prefix, has_v6: bool) -> Link {
    let IpAddr::V4(network) = subnet.address else {
        return Link { name: String::new(), addresses: Vec::new() };
    };
    let bits = network.to_bits();
    let mut addresses = vec![(Ipv4Addr::from_bits(bits + 1).into(), Ipv4Addr::from_bits(bits + 2).into())];
    if has_v6 {
        let [high, low] = [bits >> 16, bits & 0xffff].map(|half| u16::try_from(half).unwrap_or_default());
        // A unique local network, RFC 4193, with the IPv4 network in it.
        let v6 = |host| Ipv6Addr::new(0xfd66, 0x6376, 0x6d00, 0, 0, high, low, host);
        addresses.push((v6(1).into(), v6(2).into()));
    }
    Link { name: link_name(subnet), addresses }
}

/// The name of the link in a network.
#[must_use]
pub fn link_name(subnet: Prefix) -> String {
    match subnet.address {
        IpAddr::V4(network) => format!("{OUR_INTERFACES}{:08x}", network.to_bits()),
        IpAddr::V6(network) => format!("{OUR_INTERFACES}{network}"),
    }
}

/// The network of the link with that name, if it is one.
#[must_use]
pub fn network_of(name: &str) -> Option<Prefix> {
    let digits = name.strip_prefix(OUR_INTERFACES).filter(|digits| digits.len() == 8)?;
    let address = Ipv4Addr::from_bits(u32::from_str_radix(digits, 16).ok()?).into();
    Some(Prefix { address, length: LINK_PREFIX })
}

/// A port of the namespace for each that the guest is reached at: the host's number, unless another address
/// of the host has that for another port of the guest.
fn forwards(ports: &[PortRecord]) -> Vec<Forward> {
    let mut taken: Vec<((Protocol, u16), u16)> = Vec::new();
    let mut spare = RELAYS;
    let mut forwards = Vec::new();
    for &record in ports {
        let mut relay = record.host.port();
        while taken.iter().any(|(key, guest)| *key == (record.protocol, relay) && *guest != record.guest) {
            match spare.next() {
                Some(next) => relay = next,
                None => break,
            }
        }
        taken.push(((record.protocol, relay), record.guest));
        forwards.push(Forward { record, relay });
    }
    forwards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host: &str, guest: u16) -> PortRecord {
        PortRecord { guest, protocol: Protocol::Tcp, host: host.parse().unwrap() }
    }

    #[test]
    fn relays_are_unique_to_where_they_lead() {
        let ports = [
            port("127.0.0.2:8080", 80),
            port("192.0.2.1:8080", 80),
            port("192.0.2.2:8080", 81),
            port("192.0.2.3:8080", 82),
            port("127.0.0.2:20000", 83),
        ];
        let relays: Vec<_> = forwards(&ports).iter().map(|forward| forward.relay).collect();
        assert_eq!(relays, [8080, 8080, 20_000, 20_001, 20_002]);
    }

    #[test]
    fn a_link_is_named_by_its_network() {
        let link = link("10.231.0.4/30".parse().unwrap(), true);
        assert_eq!(link.name, "fcvm-0ae70004");
        assert_eq!(network_of(&link.name), Some("10.231.0.4/30".parse().unwrap()));
        assert_eq!([network_of("fcvm-x"), network_of("fcvm-+ae70004x"), network_of("eth0")], [None; 3]);
        assert_eq!(link.addresses[0], ("10.231.0.5".parse().unwrap(), "10.231.0.6".parse().unwrap()));
        let (host, vm) = link.addresses[1];
        assert_eq!(host.to_string(), "fd66:6376:6d00::ae7:4:1");
        assert_eq!(vm.to_string(), "fd66:6376:6d00::ae7:4:2");
    }
}
