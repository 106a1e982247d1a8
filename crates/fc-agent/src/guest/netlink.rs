//! Requests to the kernel's routing socket, rtnetlink(7): one message each, and its acknowledgement.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket},
};

/// An acknowledgement has the request in it.
const LONGEST: usize = 4096;

/// A connection to it.
#[derive(Debug)]
pub(super) struct Routes {
    socket: OwnedFd,
}

impl Routes {
    /// Connects.
    ///
    /// # Errors
    /// Where the kernel has no such socket.
    pub(super) fn open() -> io::Result<Self> {
        // No protocol is NETLINK_ROUTE.
        Ok(Self { socket: socket(AddressFamily::NETLINK, SocketType::RAW, None)? })
    }

    /// Changes something that is there.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn change(&self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.request(request, 0)
    }

    /// Makes something that is not.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn make(&self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.request(request, NLM_F_CREATE | NLM_F_EXCL)
    }

    fn request(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answer = [0; LONGEST];
        let (length, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer[..length.min(LONGEST)]);
        match answer.map_err(io::Error::other)?.payload {
            // Without a code it acknowledges.
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
