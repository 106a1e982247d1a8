//! The loopback interface, by one netlink message.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket};

/// `RTM_NEWLINK` for interface 1 with `IFF_UP`: see rtnetlink(7).
fn message() -> [u8; 32] {
    const RTM_NEWLINK: u16 = 16;
    const NLM_F_REQUEST_ACK: u16 = 1 | 4;
    const LOOPBACK_INDEX: u32 = 1;
    const IFF_UP: u32 = 1;
    let mut bytes = [0; 32];
    // nlmsghdr: length, type, flags, sequence, port
    bytes[..4].copy_from_slice(&32u32.to_ne_bytes());
    bytes[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    // ifinfomsg: family, type, index, flags, change mask
    bytes[20..24].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    bytes[24..28].copy_from_slice(&IFF_UP.to_ne_bytes());
    bytes[28..32].copy_from_slice(&IFF_UP.to_ne_bytes());
    bytes
}

/// Brings the interface up; the kernel gives it 127.0.0.1 and ::1.
pub(super) fn up() -> io::Result<()> {
    // No protocol is NETLINK_ROUTE.
    let socket = socket(AddressFamily::NETLINK, SocketType::RAW, None)?;
    send(&socket, &message(), SendFlags::empty())?;
    let mut answer = [0; 256];
    let (length, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // nlmsgerr: a negative errno behind the header, 0 for an acknowledgement
    match answer.get(16..20).filter(|_| length >= 20) {
        Some(&[0, 0, 0, 0]) => Ok(()),
        Some(&[a, b, c, d]) => {
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes([a, b, c, d]).wrapping_neg()))
        }
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
