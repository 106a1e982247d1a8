//! TCP connections that lead nowhere any more, since the guest goes on from a snapshot: ended, so that
//! nobody waits for their other ends. By sock_diag(7), of which the structures are `linux/inet_diag.h`'s. A kernel
//! that does not end connections for others (without `CONFIG_INET_DIAG_DESTROY`, as those that Firecracker's makers
//! test with) is [provoked](super::provocation) to ask their other ends.

use std::{
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket},
};

use super::provocation::{Both, provoke};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` of `linux/sock_diag.h`.
const LIST: u16 = 20;
const DESTROY: u16 = 21;
/// Flags of messages, and their types, of `linux/netlink.h`.
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `IPPROTO_TCP`.
const TCP: u8 = 6;
/// Every state but `TCP_TIME_WAIT` (6), `TCP_CLOSE` (7), `TCP_LISTEN` (10) and those that only the kernel knows.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// A message's header, a socket's identity, and where it is in an answer.
const HEADER: usize = 16;
const IDENTITY: usize = 48;
const IDENTITY_AT: usize = HEADER + 4;
/// In an identity: ports, then the addresses of both ends.
const SOURCE_AT: usize = 4;
const ADDRESS: usize = 16;
/// As much as the kernel puts into one answer, and more.
const LONGEST: usize = 32 << 10;

/// Asks the kernel about them.
#[derive(Debug)]
pub(super) struct Connections {
    socket: OwnedFd,
    /// Where the kernel counts sockets, by what it calls TCP's there: to ask for each takes much longer.
    counts: Vec<(File, &'static str)>,
}

impl Connections {
    /// # Errors
    /// Where the kernel cannot tell of them.
    pub(super) fn open() -> io::Result<Self> {
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG))?;
        let counted = |(path, name)| Some((File::open(path).ok()?, name));
        let counts = [("/proc/net/sockstat", "TCP"), ("/proc/net/sockstat6", "TCP6")];
        Ok(Self { socket, counts: counts.into_iter().filter_map(counted).collect() })
    }

    /// Whether there is surely none.
    fn none(&self) -> bool {
        let mut text = [0; 1024];
        self.counts.iter().all(|(file, name)| {
            let read = file.read_at(&mut text, 0).unwrap_or(0);
            std::str::from_utf8(&text[..read]).is_ok_and(|text| in_use(text, name) == Some(0))
        }) && !self.counts.is_empty()
    }

    /// Ends all connections but those within the guest; how many. They may end soon after.
    ///
    /// # Errors
    /// Where the kernel cannot end them.
    pub(super) fn end(&self) -> io::Result<usize> {
        if self.none() {
            return Ok(0);
        }
        let mut ended = 0;
        let mut answer = vec![0; LONGEST];
        for family in [AddressFamily::INET, AddressFamily::INET6] {
            let family = u8::try_from(family.as_raw()).map_err(io::Error::other)?;
            self.send(&request(family, LIST, DUMP, &[0; IDENTITY]))?;
            let identities = listed(&mut answer, |answer| self.receive(answer))?;
            for identity in &identities {
                self.send(&request(family, DESTROY, ACKNOWLEDGE, identity))?;
                let length = self.receive(&mut answer)?;
                match messages(&answer[..length]).next().map(|(_, message)| code(message)) {
                    Some(0) => ended += 1,
                    // It has ended meanwhile.
                    Some(error) if error == -Errno::NOENT.raw_os_error() => {}
                    Some(error) if error == -Errno::OPNOTSUPP.raw_os_error() => {
                        ended += provoke(identities.iter().map(ends))?;
                        break;
                    }
                    Some(error) => return Err(io::Error::from_raw_os_error(-error)),
                    None => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
        Ok(ended)
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        send(&self.socket, message, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&self, answer: &mut [u8]) -> io::Result<usize> {
        let (length, _) = recv(&self.socket, &mut *answer, RecvFlags::empty())?;
        Ok(length.min(answer.len()))
    }
}

/// How many sockets of a protocol there are, of `/proc/net/sockstat`: `TCP: inuse 1 orphan 0 …`.
fn in_use(text: &str, protocol: &str) -> Option<u32> {
    let counts = text.lines().find_map(|line| line.strip_prefix(protocol)?.strip_prefix(": inuse "))?;
    counts.split(' ').next()?.parse().ok()
}

/// The identities of connections, of the answers to a request for all.
fn listed(
    answer: &mut [u8],
    mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
) -> io::Result<Vec<[u8; IDENTITY]>> {
    let mut found = Vec::new();
    loop {
        let length = receive(answer)?;
        for (kind, message) in messages(&answer[..length]) {
            match kind {
                DONE => return Ok(found),
                ERROR => return Err(io::Error::from_raw_os_error(-code(message))),
                _ => {
                    let identity = message.get(IDENTITY_AT..IDENTITY_AT + IDENTITY);
                    found.extend(
                        identity.and_then(|it| it.try_into().ok()).filter(|identity| !is_local(identity)),
                    );
                }
            }
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// `struct inet_diag_req_v2` with its header.
fn request(family: u8, kind: u16, flags: u16, identity: &[u8; IDENTITY]) -> Vec<u8> {
    let mut message = Vec::new();
    let length = u32::try_from(HEADER + 8 + IDENTITY).unwrap_or_default();
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    message.extend([0; 8]);
    message.extend([family, TCP, 0, 0]);
    message.extend(CONNECTED.to_ne_bytes());
    message.extend(identity);
    message
}

/// The messages of a datagram: kind, and all of it.
fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(datagram.get(..4)?.try_into().ok()?);
        let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
        let kind = u16::from_ne_bytes(datagram.get(4..6)?.try_into().ok()?);
        let message = datagram.get(..length)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, message))
    })
}

/// The negative number of an error; 0 acknowledges.
fn code(message: &[u8]) -> i32 {
    let number = message.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
    number.map_or(-Errno::INVAL.raw_os_error(), i32::from_ne_bytes)
}

/// The ends of a connection: the guest's, then the other. IPv4 is in the first quarter of an address, with nothing behind.
fn ends(identity: &[u8; IDENTITY]) -> Both {
    let port = |at: usize| u16::from_be_bytes([identity[at], identity[at + 1]]);
    let address = |at: usize| {
        let mut bytes = [0; ADDRESS];
        bytes.copy_from_slice(&identity[at..at + ADDRESS]);
        match bytes {
            [a, b, c, d, rest @ ..] if rest == [0; 12] => IpAddr::from([a, b, c, d]),
            _ => IpAddr::from(bytes).to_canonical(),
        }
    };
    Both {
        here: SocketAddr::new(address(SOURCE_AT), port(0)),
        there: SocketAddr::new(address(SOURCE_AT + ADDRESS), port(2)),
    }
}

/// Whether a connection does not leave the guest: both its ends have the same address.
fn is_local(identity: &[u8; IDENTITY]) -> bool {
    let (source, destination) = identity[SOURCE_AT..SOURCE_AT + 2 * ADDRESS].split_at(ADDRESS);
    source == destination || (source[0] == 127 && destination[0] == 127 && source[4..] == [0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(source: [u8; 16], destination: [u8; 16]) -> [u8; IDENTITY] {
        let mut identity = [0; IDENTITY];
        identity[SOURCE_AT..SOURCE_AT + ADDRESS].copy_from_slice(&source);
        identity[SOURCE_AT + ADDRESS..SOURCE_AT + 2 * ADDRESS].copy_from_slice(&destination);
        identity
    }

    fn v4(address: [u8; 4]) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&address);
        bytes
    }

    #[test]
    fn connections_within_the_guest_stay() {
        let (here, far) = (v4([10, 0, 2, 100]), v4([192, 0, 2, 1]));
        for (one, other, local) in [
            (v4([127, 0, 0, 1]), v4([127, 0, 0, 2]), true),
            (here, here, true),
            (here, far, false),
            (std::net::Ipv6Addr::LOCALHOST.octets(), std::net::Ipv6Addr::LOCALHOST.octets(), true),
            ([0xfd; 16], [0x20; 16], false),
        ] {
            assert_eq!(is_local(&identity(one, other)), local, "{one:?} {other:?}");
        }
    }

    #[test]
    fn ends_are_read_as_the_kernel_writes_them() {
        let mut four = identity(v4([10, 0, 2, 100]), v4([192, 0, 2, 1]));
        four[..4].copy_from_slice(&[0x9c, 0x40, 0, 7]);
        let read = ends(&four);
        assert_eq!(
            (read.here, read.there),
            ("10.0.2.100:40000".parse().unwrap(), "192.0.2.1:7".parse().unwrap())
        );
        let mapped = |last| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 2, last];
        assert_eq!(ends(&identity(mapped(1), mapped(2))).there, "10.0.2.2:0".parse().unwrap());
        let six: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
        assert_eq!(ends(&identity([0xfd; 16], six.octets())).there.ip(), six);
    }

    #[test]
    fn sockets_are_counted_by_their_protocol() {
        let text = "sockets: used 60\nTCP: inuse 12 orphan 0 tw 0 alloc 2 mem 0\nUDP: inuse 0 mem 0\n";
        assert_eq!(in_use(text, "TCP"), Some(12));
        assert_eq!(in_use("TCP6: inuse 0\nUDP6: inuse 3\n", "TCP6"), Some(0));
        assert_eq!(in_use(text, "TCP6"), None);
    }

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        let message = |kind: u16, body: &[u8]| {
            let mut message = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
            message.extend(kind.to_ne_bytes());
            message.extend([0; 10]);
            message.extend(body);
            message
        };
        let far = identity(v4([10, 0, 2, 100]), v4([192, 0, 2, 1]));
        let one = message(LIST, &[&[2, 1, 0, 0][..], &far, &[0; 20]].concat());
        let mut datagrams = vec![message(DONE, &[0; 4]), [one.clone(), one].concat()];
        let mut answer = vec![0; LONGEST];
        let found = listed(&mut answer, |answer| {
            let datagram = datagrams.pop().unwrap_or_default();
            answer[..datagram.len()].copy_from_slice(&datagram);
            Ok(datagram.len())
        });
        assert_eq!(found.unwrap(), [far, far]);
        let refused = message(ERROR, &(-2_i32).to_ne_bytes());
        let failed = listed(&mut answer, |answer| {
            answer[..refused.len()].copy_from_slice(&refused);
            Ok(refused.len())
        });
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(2));
        for bad in [&[][..], &[255; 16], &[8, 0, 0, 0, 1, 0], &[0; 40]] {
            assert_eq!(messages(bad).count(), 0, "{bad:?}");
        }
    }
}
