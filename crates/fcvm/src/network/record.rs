//! What is recorded of a VM's network: with it, it is taken.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Driver, MacAddress, Mode, Ports, Prefix, Protocol, spec::in_port};

/// What a VM has of what there is once only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// How it reaches others.
    pub mode: Mode,
    /// What makes its uplink, in a rootless one.
    pub driver: Option<Driver>,
    /// The address of the host's loopback network where its ports are unless told otherwise; none without
    /// such ports.
    pub loopback: Option<Ipv4Addr>,
    /// The network between host and VM, of a bridged one: a /30 of the pool.
    pub subnet: Option<Prefix>,
    /// Of the guest's interface.
    pub mac: MacAddress,
}

impl NetworkRecord {
    /// The addresses of a bridged VM's network: the host's, the VM's.
    #[must_use]
    pub fn ends(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let IpAddr::V4(first) = self.subnet?.address else { return None };
        let end = |number| Ipv4Addr::from(u32::from(first) | number);
        Some((end(1), end(2)))
    }
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRecord {
    /// In the guest.
    pub guest: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where the host listens.
    pub host: SocketAddr,
}

/// Ports as `podman ps` shows them, those in a row as one: `127.0.0.2:8000-8010->80-90/tcp`.
#[must_use]
pub fn summary(ports: &[PortRecord]) -> String {
    let mut ports = ports.to_vec();
    ports.sort_unstable_by_key(|port| (port.host.ip(), port.protocol, port.host.port(), port.guest));
    let follows = |a: &PortRecord, b: &PortRecord| {
        (a.host.ip(), a.protocol) == (b.host.ip(), b.protocol)
            && a.host.port().checked_add(1) == Some(b.host.port())
            && a.guest.checked_add(1) == Some(b.guest)
    };
    let texts = ports.chunk_by(follows).map(|row| {
        let (first, last) = (row[0], row[row.len() - 1]);
        let host = Ports { first: first.host.port(), last: last.host.port() };
        let guest = Ports { first: first.guest, last: last.guest };
        let address = in_port(first.host.ip());
        format!("{address}:{host}->{guest}/{}", first.protocol)
    });
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_shown_as_podman_shows_them() {
        let port = |host: &str, guest, protocol| PortRecord { guest, protocol, host: host.parse().unwrap() };
        let row = (0..3).map(|n| port(&format!("127.0.0.2:{}", 8000 + n), 80 + n, Protocol::Tcp));
        let others = [
            port("[::]:8003", 83, Protocol::Tcp),
            port("127.0.0.2:8003", 443, Protocol::Tcp),
            port("127.0.0.2:8004", 444, Protocol::Udp),
        ];
        assert_eq!(
            summary(&row.chain(others).collect::<Vec<_>>()),
            "127.0.0.2:8000-8002->80-82/tcp, 127.0.0.2:8003->443/tcp, 127.0.0.2:8004->444/udp, \
             [::]:8003->83/tcp"
        );
        assert_eq!(summary(&[]), "");
    }
}
