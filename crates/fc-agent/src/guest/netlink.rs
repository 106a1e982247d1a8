//! Requests to the kernel's routing socket, rtnetlink(7): one message each, and what the kernel answers.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, send, socket},
};

/// As much as the kernel puts into one answer (`NLMSG_GOODSIZE`), and more.
const LONGEST: usize = 32 << 10;
/// Of each message: its length is its first field, and messages are aligned.
const HEADER: usize = 16;
const ALIGNMENT: usize = 4;

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

    /// Changes or removes something that is there.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn change(&self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.request(request, 0)
    }

    /// Makes something, or makes it so where it is there.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn put(&self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.request(request, NLM_F_CREATE | NLM_F_REPLACE)
    }

    /// All that there is of a kind.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn list(&self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(request, NLM_F_DUMP)?;
        let mut all = Vec::new();
        let mut answer = vec![0; LONGEST];
        loop {
            for message in messages(self.receive(&mut answer)?) {
                match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|it| it.payload) {
                    Ok(NetlinkPayload::InnerMessage(one)) => all.push(one),
                    Ok(NetlinkPayload::Done(_)) => return Ok(all),
                    Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                    Ok(_) => {}
                    // Of a newer kernel, and not what we have made.
                    Err(error) => tracing::debug!(%error, "an answer of the kernel is not understood"),
                }
            }
        }
    }

    fn request(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.send(request, NLM_F_ACK | flags)?;
        let mut answer = vec![0; LONGEST];
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(self.receive(&mut answer)?);
        match answer.map_err(io::Error::other)?.payload {
            // Without a code it acknowledges.
            NetlinkPayload::Error(error) if error.code.is_none() => Ok(()),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn send(&self, request: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(&self.socket, &bytes, SendFlags::empty())?;
        Ok(())
    }

    fn receive<'a>(&self, answer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let (length, _) = recv(&self.socket, &mut *answer, RecvFlags::empty())?;
        Ok(&answer[..length.min(answer.len())])
    }
}

/// The messages in one answer.
fn messages(mut answer: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(*answer.first_chunk()?);
        let length = usize::try_from(length).ok().filter(|length| *length >= HEADER)?;
        let message = answer.get(..length)?;
        answer = answer.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_and_one_that_is_cut_ends_it() {
        let message = |length: u32, bytes: usize| {
            let mut message = length.to_ne_bytes().to_vec();
            message.resize(bytes, 7);
            message
        };
        let answer = [message(17, 20), message(16, 16), message(40, 20)].concat();
        assert_eq!(messages(&answer).map(<[u8]>::len).collect::<Vec<_>>(), [17, 16]);
        assert_eq!(messages(&message(0, 20)).count(), 0);
        assert_eq!(messages(&[1, 2]).count(), 0);
    }
}
