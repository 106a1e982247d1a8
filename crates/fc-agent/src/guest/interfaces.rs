//! The guest's network interfaces.

use std::{fs, io, path::Path};

use anyhow::Context as _;
use fcvm_proto::Interface;
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressMessage},
    link::{LinkFlags, LinkMessage},
};

use super::netlink::Routes;

/// The kernel's interfaces.
const INTERFACES: &str = "/sys/class/net";
/// The kernel makes it first.
const LOOPBACK: u32 = 1;

/// Brings loopback up; the kernel gives it 127.0.0.1 and ::1.
pub(super) fn loopback() -> io::Result<()> {
    Routes::open()?.change(up(LOOPBACK))
}

/// Gives interfaces their addresses, and brings them up.
///
/// # Errors
/// Where there is no such interface, or the kernel refuses.
pub(super) fn set_up(interfaces: &[Interface]) -> anyhow::Result<()> {
    for interface in interfaces {
        let mac = text(interface.mac);
        let index = index(Path::new(INTERFACES), &mac)
            .with_context(|| format!("failed to list `{INTERFACES}`"))?
            .with_context(|| format!("the machine has no network interface {mac}"))?;
        let configured = Routes::open().and_then(|routes| {
            routes.make(address(index, interface))?;
            routes.change(up(index))
        });
        configured.with_context(|| format!("failed to configure network interface {mac}"))?;
    }
    Ok(())
}

fn up(index: u32) -> RouteNetlinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::NewLink(link)
}

fn address(index: u32, interface: &Interface) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = interface.prefix;
    message.header.index = index;
    let address = interface.address.into();
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    RouteNetlinkMessage::NewAddress(message)
}

/// The number of the interface with this address.
fn index(interfaces: &Path, mac: &str) -> io::Result<Option<u32>> {
    for interface in fs::read_dir(interfaces)? {
        let path = interface?.path();
        let address = fs::read_to_string(path.join("address")).unwrap_or_default();
        if address.trim_end().eq_ignore_ascii_case(mac) {
            let index = fs::read_to_string(path.join("ifindex"))?;
            return index.trim_end().parse().map(Some).map_err(io::Error::other);
        }
    }
    Ok(None)
}

/// As the kernel writes it.
fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_found_by_their_hardware_addresses() {
        assert_eq!(text([2, 0, 0xac, 0x10, 0, 0x0f]), "02:00:ac:10:00:0f");
        let all = tempfile::tempdir().unwrap();
        for (name, address, index) in [("lo", "00:00:00:00:00:00", "1"), ("eth0", "02:00:ac:10:00:0f", "7")] {
            let path = all.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("address"), format!("{address}\n")).unwrap();
            fs::write(path.join("ifindex"), format!("{index}\n")).unwrap();
        }
        assert_eq!(index(all.path(), "02:00:AC:10:00:0f").unwrap(), Some(7));
        assert_eq!(index(all.path(), "02:00:ac:10:00:00").unwrap(), None);
    }
}
