//! Connections whose other ends are not there any more, where the kernel does not end them for others: each is sent the
//! beginning of a connection from its other end. Whatever its number, that is answered by what this end has last
//! received (a *challenge ACK*, RFC 5961, section 4), and that by who is asked with a reset that this end believes.
//!
//! The segments are the guest's own, by a raw socket (raw(7), ipv6(7)): addressed to itself, they never leave it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket};

/// Both ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Both {
    /// The guest's.
    pub(super) here: SocketAddr,
    /// The other.
    pub(super) there: SocketAddr,
}

/// `IPPROTO_TCP`, and how far a packet may go that goes nowhere.
const TCP: u8 = 6;
const HOPS: u8 = 64;
/// Bytes of a TCP header without options.
const SEGMENT: usize = 20;
const SEGMENT_LENGTH: u16 = 20;
/// `SYN`, in the byte of flags.
const SYN: u8 = 2;

/// Provokes these; how many.
///
/// # Errors
/// Where the kernel has no raw sockets.
pub(super) fn provoke(connections: impl Iterator<Item = Both>) -> io::Result<usize> {
    let [mut v4, mut v6] = [None, None];
    let mut count = 0;
    for both in connections {
        let Some(packet) = packet(both) else { continue };
        let (family, kept) = if both.here.is_ipv4() {
            (AddressFamily::INET, &mut v4)
        } else {
            (AddressFamily::INET6, &mut v6)
        };
        let raw = match kept {
            Some(raw) => raw,
            // Of this protocol, what is sent has its header, also of IPv6.
            None => kept.insert(socket(family, SocketType::RAW, Some(ipproto::RAW))?),
        };
        // To this address, whatever the port, which IPv6 wants to be none.
        match sendto(raw, &packet, SendFlags::empty(), &SocketAddr::new(both.here.ip(), 0)) {
            Ok(_) => count += 1,
            // Of an address that is no more, say: the others are to hear of it all the same.
            Err(error) => tracing::debug!(%error, ?both, "a connection is not ended"),
        }
    }
    Ok(count)
}

/// From there to here; `None` where these are of different kinds, which no connection's are.
fn packet(Both { here, there }: Both) -> Option<Vec<u8>> {
    let mut segment = [0; SEGMENT];
    segment[..2].copy_from_slice(&there.port().to_be_bytes());
    segment[2..4].copy_from_slice(&here.port().to_be_bytes());
    // Its length in words of four bytes.
    segment[12] = 5 << 4;
    segment[13] = SYN;
    let mut packet;
    // What the checksum is of, besides the segment: addresses, protocol, length.
    let mut covered;
    match (there.ip(), here.ip()) {
        (IpAddr::V4(there), IpAddr::V4(here)) => {
            covered = [there.octets(), here.octets()].concat();
            // Version, length of the header in words; the kernel fills in checksum and number.
            packet = vec![0x45, 0];
            packet.extend((20 + SEGMENT_LENGTH).to_be_bytes());
            packet.extend([0, 0, 0, 0, HOPS, TCP, 0, 0]);
        }
        (IpAddr::V6(there), IpAddr::V6(here)) => {
            covered = [there.octets(), here.octets()].concat();
            packet = vec![0x60, 0, 0, 0];
            packet.extend(SEGMENT_LENGTH.to_be_bytes());
            packet.extend([TCP, HOPS]);
        }
        _ => return None,
    }
    packet.extend(&covered);
    covered.extend([0, TCP]);
    covered.extend(SEGMENT_LENGTH.to_be_bytes());
    covered.extend(segment);
    segment[16..18].copy_from_slice(&checksum(&covered).to_be_bytes());
    packet.extend(segment);
    Some(packet)
}

/// That of the internet, RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while let (carry @ 1.., low) = (sum >> 16, sum & 0xffff) {
        sum = carry + low;
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        net::{TcpListener, TcpStream},
        thread,
        time::Duration,
    };

    use fcvm_testkit::needs_root;

    use super::*;

    fn of(here: &str, there: &str) -> Option<Vec<u8>> {
        packet(Both { here: here.parse().unwrap(), there: there.parse().unwrap() })
    }

    #[test]
    fn a_checksum_is_the_internets() {
        // RFC 1071, section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
    }

    #[test]
    fn a_segment_comes_from_the_other_end_and_is_whole() {
        for (here, there, header, addresses) in [
            ("10.0.2.100:40000", "192.0.2.1:7", 20, 12..20),
            ("[fd00::100]:40000", "[2001:db8::1]:7", 40, 8..40),
        ] {
            let packet = of(here, there).unwrap();
            let (ip, tcp) = packet.split_at(header);
            assert_eq!((tcp.len(), tcp[13]), (SEGMENT, SYN));
            assert_eq!(tcp[..4], [0, 7, 0x9c, 0x40]);
            // With the checksum in it, it comes to nothing.
            let pseudo = [&ip[addresses], &[0, TCP, 0, 20], tcp].concat();
            assert_eq!(checksum(&pseudo), 0, "{here}");
        }
        assert_eq!(of("10.0.2.100:1", "[2001:db8::1]:7"), None);
    }

    #[test]
    fn root_who_waits_for_nobody_hears_of_it() {
        if !needs_root() {
            return;
        }
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let mut here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (there, _) = listener.accept().unwrap();
            let both = Both { here: here.local_addr().unwrap(), there: here.peer_addr().unwrap() };
            here.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            crate::sys::vanish(there);
            let waiting = thread::spawn(move || here.read(&mut [0]));
            // Behind one at an address to which nothing may be sent.
            let all = "255.255.255.255:1".parse().unwrap();
            let astray = Both { here: all, there: all };
            assert_eq!(provoke([astray, both].into_iter()).unwrap(), 1);
            let error = waiting.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{address}: {error}");
        }
    }
}
