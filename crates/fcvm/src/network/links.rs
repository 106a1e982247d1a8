//! The network interfaces of the namespace that this process is in, by rtnetlink(7).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd as _, BorrowedFd},
};

use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
        link::{InfoData, InfoKind, InfoVeth},
    },
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};
use tokio::task::JoinHandle;

/// A connection to the kernel.
#[derive(Debug)]
pub(super) struct Links {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Links {
    /// Connects, in a runtime.
    ///
    /// # Errors
    /// Where the kernel has no such socket.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Makes a pair of interfaces: one here, its peer in another namespace.
    ///
    /// # Errors
    /// `AlreadyExists` where there is one of the name.
    pub(super) async fn make_pair(
        &self,
        name: &str,
        peer: (&str, BorrowedFd<'_>),
        mtu: u16,
    ) -> io::Result<()> {
        let (peer, namespace) = peer;
        let peer = LinkMessageBuilder::<LinkUnspec>::new()
            .name(peer)
            .mtu(mtu.into())
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .mtu(mtu.into())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        self.handle.link().add(pair.build()).execute().await.map_err(from)
    }

    /// Removes an interface, where it is.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn remove(&self, name: &str) -> io::Result<()> {
        match index(name) {
            Ok(index) => match self.handle.link().del(index).execute().await.map_err(from) {
                // It has just gone with its peer.
                Err(error) if error.raw_os_error() == Some(NO_DEVICE) => Ok(()),
                removed => removed,
            },
            Err(error) if error.raw_os_error() == Some(NO_DEVICE) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives an interface an address that can be used at once.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn add_address(&self, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let mut request = self.handle.address().add(index(name)?, address, prefix);
        if address.is_ipv6() {
            // Nobody else is there who could have it.
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        request.execute().await.map_err(from)
    }

    /// Sets the length of an interface's packets and its hardware address, and brings it up.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn bring_up(
        &self,
        name: &str,
        mtu: Option<u16>,
        mac: Option<[u8; 6]>,
    ) -> io::Result<()> {
        let mut message = LinkUnspec::new_with_index(index(name)?).up();
        if let Some(mtu) = mtu {
            message = message.mtu(mtu.into());
        }
        if let Some(mac) = mac {
            message = message.address(mac.into());
        }
        self.handle.link().set(message.build()).execute().await.map_err(from)
    }

    /// Has what goes anywhere else go by way of this address.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn add_default_route(&self, gateway: IpAddr) -> io::Result<()> {
        let route = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<Ipv6Addr>::new().gateway(gateway).build(),
        };
        self.handle.route().add(route).execute().await.map_err(from)
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

const NO_DEVICE: i32 = rustix::io::Errno::NODEV.raw_os_error();

/// The number of an interface.
///
/// # Errors
/// `ENODEV` where there is none of the name.
pub(super) fn index(name: &str) -> io::Result<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(name_to_index(&socket, name)?)
}

fn from(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}
