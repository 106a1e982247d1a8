//! What there is once only on a host, held by sockets: it is free again when this process ends, however it
//! does, and taken for VMs of all users and all data directories.
//!
//! A port is held by a socket that is bound to it and does not listen, so that nothing is answered there until
//! the guest does. An address or a network is held by a name in the abstract namespace of Unix sockets. The
//! kernel lists no TCP socket that is bound and no more: by such a name it is told who holds a port.

use std::{
    collections::HashMap,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::OwnedFd,
};

use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with, sockopt},
    process::{Resource as Limit, Rlimit, getrlimit, setrlimit},
};

use super::{Allocation, NetworkError, PortRecord, Prefix, Protocol, allocate::refused};

/// What there is once only on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resource {
    /// An address of the loopback network.
    Loopback(Ipv4Addr),
    /// A network between the host and a VM.
    Subnet(Prefix),
    /// A port of the host.
    Port(SocketAddr, Protocol),
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => write!(f, "loopback address {address}"),
            Self::Subnet(subnet) => write!(f, "network {subnet}"),
            Self::Port(host, protocol) => write!(f, "port {host}/{protocol}"),
        }
    }
}

/// From whom resources are had.
pub trait Host {
    /// Takes one.
    ///
    /// # Errors
    /// `AddrInUse` where another has it.
    fn take(&mut self, resource: Resource) -> io::Result<()>;

    /// Gives one back.
    fn give_back(&mut self, resource: Resource);
}

/// What this process holds.
#[derive(Debug, Default)]
pub struct Reservations {
    held: HashMap<Resource, Held>,
}

/// By what a resource is held.
#[derive(Debug)]
struct Held {
    _socket: OwnedFd,
    /// Of a port: a name that says so.
    _sign: Option<OwnedFd>,
}

/// With what the signs of ports begin; behind it are address, port and protocol.
pub(super) const SIGN: &str = "fcvm/port/";

impl Reservations {
    /// Gives all back but what was allocated.
    pub fn keep(&mut self, allocation: &Allocation) {
        self.held.retain(|resource, _| match resource {
            Resource::Loopback(address) => allocation.network.loopback == Some(*address),
            Resource::Subnet(subnet) => allocation.network.subnet == Some(*subnet),
            Resource::Port(host, protocol) => {
                allocation.ports.iter().any(|port| port.host == *host && port.protocol == *protocol)
            }
        });
    }

    /// Gives the ports back, for another process to listen there.
    pub fn release_ports(&mut self) {
        self.held.retain(|resource, _| !matches!(resource, Resource::Port(..)));
    }

    /// Holds ports that were allocated, where they are not held already.
    ///
    /// # Errors
    /// Of the first that another has, or that this user may not have.
    pub fn hold_ports(&mut self, ports: &[PortRecord]) -> Result<(), NetworkError> {
        for port in ports {
            self.take(Resource::Port(port.host, port.protocol))
                .map_err(|error| refused(port.host, port.protocol, error).with_holder())?;
        }
        Ok(())
    }
}

impl Host for Reservations {
    fn take(&mut self, resource: Resource) -> io::Result<()> {
        if self.held.contains_key(&resource) {
            return Ok(());
        }
        let held = match hold(resource) {
            // Limits are often lower than ports are many.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
                raise_limit_of_files()?;
                hold(resource)
            }
            held => held,
        }?;
        self.held.insert(resource, held);
        Ok(())
    }

    fn give_back(&mut self, resource: Resource) {
        self.held.remove(&resource);
    }
}

fn hold(resource: Resource) -> io::Result<Held> {
    let bare = |socket| Held { _socket: socket, _sign: None };
    match resource {
        Resource::Port(host, protocol) => {
            let socket = bind_port(host, protocol)?;
            // The port is held without it, too.
            let sign = bind_name(&format!("{SIGN}{host}/{protocol}")).ok();
            Ok(Held { _socket: socket, _sign: sign })
        }
        Resource::Loopback(address) => bind_name(&format!("fcvm/loopback/{address}")).map(bare),
        Resource::Subnet(subnet) => bind_name(&format!("fcvm/network/{subnet}")).map(bare),
    }
}

/// A name of this network namespace, as addresses and networks are.
fn bind_name(name: &str) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok(socket)
}

/// A socket with which nobody else can have the port.
fn bind_port(host: SocketAddr, protocol: Protocol) -> io::Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let family = if host.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if host.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // Connections that have ended do not keep it. But with the option left on, others that have it too could
    // listen here, and of UDP even share it.
    let reuse = protocol == Protocol::Tcp;
    sockopt::set_socket_reuseaddr(&socket, reuse)?;
    bind(&socket, &host)?;
    sockopt::set_socket_reuseaddr(&socket, false)?;
    Ok(socket)
}

/// As many open files as this process may have.
pub(super) fn raise_limit_of_files() -> io::Result<()> {
    let limit = getrlimit(Limit::Nofile);
    Ok(setrlimit(Limit::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn in_use(taken: io::Result<()>) -> bool {
        matches!(taken, Err(error) if error.kind() == io::ErrorKind::AddrInUse)
    }

    /// Of all tests, this one alone takes ports at this address.
    const HERE: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);

    #[test]
    fn a_held_port_is_nobody_elses_and_answers_nothing() {
        let free = TcpListener::bind((HERE, 0)).unwrap().local_addr().unwrap();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let port = Resource::Port(free, protocol);
            let mut held = Reservations::default();
            held.take(port).unwrap();
            // Again by the same is nothing new.
            held.take(port).unwrap();
            assert!(in_use(Reservations::default().take(port)), "{protocol}");
            let everywhere = Resource::Port(SocketAddr::from(([0; 4], free.port())), protocol);
            assert!(in_use(Reservations::default().take(everywhere)), "{protocol}");
            // std's listeners share ports where they can.
            match protocol {
                Protocol::Tcp => {
                    assert_eq!(TcpListener::bind(free).unwrap_err().kind(), io::ErrorKind::AddrInUse);
                    let refused = TcpStream::connect(free).unwrap_err();
                    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
                }
                Protocol::Udp => {
                    assert_eq!(UdpSocket::bind(free).unwrap_err().kind(), io::ErrorKind::AddrInUse);
                }
            }
            held.release_ports();
            Reservations::default().take(port).unwrap();
        }
    }

    #[test]
    fn a_listener_is_found_and_what_it_has_left_behind_is_not() {
        let listener = TcpListener::bind((HERE, 0)).unwrap();
        let port = Resource::Port(listener.local_addr().unwrap(), Protocol::Tcp);
        assert!(in_use(Reservations::default().take(port)));
        // The side that ends first leaves a connection behind that waits.
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        drop(listener.accept().unwrap());
        drop((client, listener));
        Reservations::default().take(port).unwrap();
    }

    #[test]
    fn a_port_of_ipv6_is_not_one_of_ipv4() {
        let mut held = Reservations::default();
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        match held.take(Resource::Port(SocketAddr::from(([0u16; 8], port)), Protocol::Tcp)) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
                fcvm_testkit::skip("this host has no IPv6");
            }
            taken => taken.unwrap(),
        }
    }

    #[test]
    fn addresses_and_networks_are_held_once_until_the_end() {
        let mut held = Reservations::default();
        for resource in [Resource::Loopback(HERE), Resource::Subnet("198.51.100.0/30".parse().unwrap())] {
            held.take(resource).unwrap();
            let mut other = Reservations::default();
            assert!(in_use(other.take(resource)), "{resource}");
            held.give_back(resource);
            other.take(resource).unwrap();
        }
    }
}
