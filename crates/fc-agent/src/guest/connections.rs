//! TCP connections that lead nowhere any more, since the guest goes on from a snapshot: ended, so that
//! nobody waits for their other ends. By sock_diag(7), of which the structures are `linux/inet_diag.h`'s.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink, recv, send, socket};

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

/// Ends all connections but those within the guest; how many.
///
/// # Errors
/// Where the kernel cannot tell of them, or cannot end them.
pub(super) fn end() -> io::Result<usize> {
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::SOCK_DIAG))?;
    let mut ended = 0;
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let family = u8::try_from(family.as_raw()).map_err(io::Error::other)?;
        send(&socket, &request(family, LIST, DUMP, &[0; IDENTITY]), SendFlags::empty())?;
        for identity in listed(|answer| Ok(recv(&socket, answer, RecvFlags::empty())?.0))? {
            send(&socket, &request(family, DESTROY, ACKNOWLEDGE, &identity), SendFlags::empty())?;
            let mut answer = vec![0; LONGEST];
            let length = recv(&socket, &mut answer[..], RecvFlags::empty())?.0;
            match messages(&answer[..length]).next().map(|(_, message)| code(message)) {
                Some(0) => ended += 1,
                // It has ended meanwhile.
                Some(error) if error == -rustix::io::Errno::NOENT.raw_os_error() => {}
                Some(error) => return Err(io::Error::from_raw_os_error(-error)),
                None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
    Ok(ended)
}

/// The identities of connections, of the answers to a request for all.
fn listed(mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>) -> io::Result<Vec<[u8; IDENTITY]>> {
    let mut found = Vec::new();
    let mut answer = vec![0; LONGEST];
    loop {
        let length = receive(&mut answer)?;
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
    number.map_or(-rustix::io::Errno::INVAL.raw_os_error(), i32::from_ne_bytes)
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
        let found = listed(|answer| {
            let datagram = datagrams.pop().unwrap_or_default();
            answer[..datagram.len()].copy_from_slice(&datagram);
            Ok(datagram.len())
        });
        assert_eq!(found.unwrap(), [far, far]);
        let refused = message(ERROR, &(-2_i32).to_ne_bytes());
        let failed = listed(|answer| {
            answer[..refused.len()].copy_from_slice(&refused);
            Ok(refused.len())
        });
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(2));
        for bad in [&[][..], &[255; 16], &[8, 0, 0, 0, 1, 0], &[0; 40]] {
            assert_eq!(messages(bad).count(), 0, "{bad:?}");
        }
    }
}
