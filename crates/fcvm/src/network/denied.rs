//! What the firewall refused, told by the kernel: rules with `log group N` in the VM's namespace send the
//! beginning of each packet to a netlink socket, and what was refused becomes a line of the log.
//!
//! The packets are the guest's bytes, and it may send as many as it likes: the kernel drops what is not read
//! in time, we read little at a time, and what is the same is told once a minute.

use std::{
    convert::Infallible,
    fmt, io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use etherparse::{IpNumber, LaxIpSlice};
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_netfilter::{
    NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nflog::{ConfigCmd, ConfigMode, PacketNla, Timeout, ULogMessage, config_request},
};
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep},
};

use super::{Protocol, recently::Recently};
use crate::process::watch;

/// Of each packet: the longest header of IPv4, or one of IPv6 and some extensions, and the ports.
const SNAPSHOT: u32 = 128;
/// For how long the kernel collects packets for one message.
const COLLECTING: Duration = Duration::from_millis(100);
/// How long we leave it alone after one.
const PAUSE: Duration = Duration::from_millis(50);
/// A message of several packets: the kernel makes them of a page.
const LONGEST: usize = 64 << 10;

/// A packet that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Denied {
    /// What it was.
    pub protocol: Transport,
    /// Where it was to go.
    pub destination: IpAddr,
    /// And to which port, where there is such a thing and the packet was whole.
    pub port: Option<u16>,
    /// What the rule says of itself (`log prefix`).
    pub prefix: String,
}

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP or UDP
    Ports(Protocol),
    /// ICMP of either version.
    Icmp,
    /// Another, by its number.
    Other(u8),
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ports(Protocol::Tcp) => f.write_str("tcp"),
            Self::Ports(Protocol::Udp) => f.write_str("udp"),
            Self::Icmp => f.write_str("icmp"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}

impl Denied {
    /// Reads the beginning of an IP packet.
    fn parse(packet: &[u8], prefix: String) -> Option<Self> {
        let (packet, _) = LaxIpSlice::from_slice(packet).ok()?;
        let payload = packet.payload();
        let protocol = match payload.ip_number {
            IpNumber::TCP => Transport::Ports(Protocol::Tcp),
            IpNumber::UDP => Transport::Ports(Protocol::Udp),
            IpNumber::ICMP | IpNumber::IPV6_ICMP => Transport::Icmp,
            other => Transport::Other(other.0),
        };
        // Both have the ports first. Of a packet in pieces, only the first has them.
        let port = match (protocol, payload.payload) {
            (Transport::Ports(_), [_, _, high, low, ..]) if !payload.fragmented => {
                Some(u16::from_be_bytes([*high, *low]))
            }
            _ => None,
        };
        Some(Self { protocol, destination: packet.destination_addr(), port, prefix })
    }

    /// The same in one word.
    fn place(&self) -> String {
        match self.port {
            Some(port) => SocketAddr::new(self.destination, port).to_string(),
            None => self.destination.to_string(),
        }
    }
}

/// A socket to which the rules of this network namespace with `log group GROUP` send packets: of the
/// namespace of the thread that calls.
///
/// # Errors
/// Where the kernel does not log, or does not permit it: another has the group, or this user has no power
/// over the namespace.
pub fn open(group: u16) -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER))?;
    // To ask for the group, and then for its packets: some kernels read no more than the command of a
    // message that has one.
    request(&socket, group, ConfigCmd::Bind)?;
    request(&socket, group, ConfigMode::new_packet(SNAPSHOT))?;
    request(&socket, group, Timeout::from(COLLECTING))?;
    Ok(socket)
}

fn request(
    socket: impl AsFd,
    group: u16,
    what: impl Into<netlink_packet_netfilter::nflog::ConfigNla>,
) -> io::Result<()> {
    let request = config_request(NetfilterProtoFamily::Unspec, group, vec![what.into()]);
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    send(&socket, &bytes, SendFlags::empty())?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let (length, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        // Packets may come before the answer.
        for message in messages(&buffer[..length.min(LONGEST)]) {
            if let NetlinkPayload::Error(answer) = message.payload {
                return if answer.code.is_none() { Ok(()) } else { Err(answer.to_io()) };
            }
        }
    }
}

/// The messages of one datagram, as far as they can be read.
fn messages(mut bytes: &[u8]) -> Vec<NetlinkMessage<NetfilterMessage>> {
    /// Each begins at a multiple of this.
    const ALIGNMENT: usize = 4;
    let mut messages = Vec::new();
    while let Some((length, _)) = bytes.split_first_chunk() {
        let length = u32::from_ne_bytes(*length) as usize;
        // Of one that cannot be read the length is good.
        if let Some(message) = bytes.get(..length) {
            messages.extend(NetlinkMessage::deserialize(message));
        }
        let next = length.max(ALIGNMENT).next_multiple_of(ALIGNMENT);
        bytes = bytes.get(next..).unwrap_or_default();
    }
    messages
}

/// The packets of one datagram of the kernel's.
fn packets(bytes: &[u8]) -> Vec<Denied> {
    let packet = |message: NetlinkMessage<NetfilterMessage>| {
        let NetlinkPayload::InnerMessage(message) = message.payload else { return None };
        let NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)) = message.inner else { return None };
        let prefix = attributes.iter().find_map(|attribute| match attribute {
            PacketNla::Prefix(prefix) => Some(prefix.to_string_lossy().trim().to_owned()),
            _ => None,
        });
        attributes.iter().find_map(|attribute| match attribute {
            PacketNla::Payload(packet) => Denied::parse(packet, prefix.clone().unwrap_or_default()),
            _ => None,
        })
    };
    messages(bytes).into_iter().filter_map(packet).collect()
}

/// Packets as they are refused.
#[derive(Debug)]
pub struct Log {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Log {
    /// Puts what [`open`] gave under the care of the runtime in which this is called.
    ///
    /// # Errors
    /// Where it cannot be watched.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: watch(socket)?, buffer: vec![0; LONGEST] })
    }

    /// The next ones. That some were lost is no error.
    ///
    /// # Errors
    /// Where the socket is broken.
    pub async fn next(&mut self) -> io::Result<Vec<Denied>> {
        loop {
            let Self { socket, buffer } = self;
            let received = socket.async_io(Interest::READABLE, |socket| {
                Ok(recv(socket, &mut buffer[..], RecvFlags::DONTWAIT)?)
            });
            match received.await {
                Ok((length, _)) => return Ok(packets(&self.buffer[..length.min(LONGEST)])),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what is refused to the program's log, as target `egress`.
    ///
    /// # Errors
    /// Ends only where the socket is broken.
    pub async fn report(mut self) -> io::Result<Infallible> {
        let mut recently = Recently::new();
        loop {
            for denied in self.next().await? {
                let place = denied.place();
                let Denied { protocol, prefix, .. } = &denied;
                let (protocol, prefix) = (protocol.to_string(), prefix.clone());
                if recently.is_news(denied, Instant::now()) {
                    tracing::info!(target: "egress", protocol, destination = place, rule = prefix, "refused");
                }
            }
            sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests;
