//! Addresses that are the same for every VM.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Of the guest.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
/// Of the guest's gateway, in the VM's namespace.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Of the gateway's interface: a clone finds its own gateway at the address that the snapshot's had.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0xfc, 0xfc, 0, 0, 0x02];
/// Where passt forwards DNS, as it has no address of its own.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Bits of the network with all of them.
pub const PREFIX: u8 = 24;
/// Of the guest: a unique local address, RFC 4193.
pub const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xfc, 0, 0, 0, 0, 0, 0x100);
/// Of its gateway.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xfc, 0, 0, 0, 0, 0, 2);
/// Bits of the network with both.
pub const PREFIX_V6: u8 = 64;

/// The guest's end, in the VM's namespace.
pub const TAP: &str = "tap0";
/// What leads out of it.
pub const UPLINK: &str = "uplink";

/// Of a rootless VM's namespace, on its uplink. Link-local, as no network beyond can have it, nor is a guest
/// let through to it.
pub const ROOTLESS: Ipv4Addr = Ipv4Addr::new(169, 254, 254, 100);
/// Of pasta or slirp4netns on the same: slirp4netns has .2 of its network.
pub const ROOTLESS_GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 254, 2);
/// Bits of the network with both.
pub const ROOTLESS_PREFIX: u8 = 24;
/// The same for IPv6; slirp4netns has no other.
pub const ROOTLESS_PREFIX_V6: u8 = 64;
/// The namespace's address there.
pub const ROOTLESS_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x100);
/// The router there.
pub const ROOTLESS_GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);

/// Of packets in the guest's network, where the uplink takes longer ones than Ethernet: what pasta and
/// slirp4netns have.
pub const LONG_PACKETS: u16 = 65520;
/// Of packets on Ethernet.
pub const USUAL_PACKETS: u16 = 1500;

/// Netfilter's group by which refused packets are told.
pub const LOG_GROUP: u16 = 1;
/// Where DNS is.
pub const DNS: u16 = 53;
