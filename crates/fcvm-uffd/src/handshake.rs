//! A connection's one message: regions as JSON, and a uffd.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Instant,
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg},
};

use crate::{HandshakeError, Region};

/// The most bytes that a message may have.
const MAX_BYTES: usize = 64 << 10;
/// The most pieces that it may come in: each is looked at from its beginning.
const MAX_PIECES: usize = 64;
/// How many descriptors are taken, to be able to say that one would do.
const MAX_DESCRIPTORS: usize = 4;

/// A connection whose message has not come yet.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) stream: UnixStream,
    pub(crate) deadline: Instant,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    pieces: usize,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) regions: Vec<Region>,
    pub(crate) uffd: OwnedFd,
}

impl Caller {
    /// The connection does not block.
    pub(crate) fn new(stream: UnixStream, deadline: Instant) -> Self {
        Self { stream, deadline, bytes: Vec::new(), descriptors: Vec::new(), pieces: 0 }
    }

    /// Takes what has come. Nothing while that is not all.
    pub(crate) fn hear(&mut self) -> Result<Option<Said>, HandshakeError> {
        loop {
            let (count, cut_off) = match self.receive() {
                Ok(received) => received,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(HandshakeError::Io { what: "receive", source: errno.into() }),
            };
            if cut_off || self.descriptors.len() > 1 {
                return Err(HandshakeError::Descriptors(self.descriptors.len()));
            }
            if count == 0 {
                return Err(HandshakeError::Ended);
            }
            self.pieces += 1;
            if self.bytes.len() > MAX_BYTES || self.pieces > MAX_PIECES {
                return Err(HandshakeError::TooLong);
            }
            match serde_json::from_slice(&self.bytes) {
                Ok(regions) => return self.said(regions).map(Some),
                Err(error) if error.is_eof() => {}
                Err(error) => return Err(HandshakeError::Json(error)),
            }
        }
    }

    fn said(&mut self, regions: Vec<Region>) -> Result<Said, HandshakeError> {
        let count = self.descriptors.len();
        let uffd = self.descriptors.pop().ok_or(HandshakeError::Descriptors(count))?;
        check_uffd(&uffd)?;
        Ok(Said { regions, uffd })
    }

    /// Receives once: how many bytes, and whether there were more descriptors than there was room for.
    fn receive(&mut self) -> Result<(usize, bool), Errno> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 8 << 10];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(&self.stream, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.bytes.extend(&buffer[..received.bytes]);
        Ok((received.bytes, received.flags.contains(ReturnFlags::CTRUNC)))
    }
}

/// Insists on a userfaultfd: orders to another descriptor could mean anything.
pub(crate) fn check_uffd(uffd: &OwnedFd) -> Result<(), HandshakeError> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", uffd.as_raw_fd()))
        .map_err(|source: io::Error| HandshakeError::Io { what: "look at the descriptor", source })?;
    if link == Path::new("anon_inode:[userfaultfd]") { Ok(()) } else { Err(HandshakeError::NotUffd) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// These bytes are Firecracker 1.16's.
    const MESSAGE: &str = r#"[{"base_host_virt_addr":140737351974912,"size":134217728,"offset":0,"page_size":4096,"page_size_kib":4096}]"#;

    fn hear(pieces: &[&[u8]]) -> Result<Option<Said>, HandshakeError> {
        let (mut theirs, ours) = UnixStream::pair().unwrap();
        let mut caller = Caller::new(ours, Instant::now());
        let mut heard = Ok(None);
        for piece in pieces {
            theirs.write_all(piece).unwrap();
            heard = caller.hear();
        }
        heard
    }

    #[test]
    fn a_message_may_come_in_pieces_and_needs_a_descriptor() {
        assert!(matches!(hear(&[&MESSAGE.as_bytes()[..50]]), Ok(None)));
        let (one, other) = MESSAGE.as_bytes().split_at(50);
        assert!(matches!(hear(&[one, other]), Err(HandshakeError::Descriptors(0))));
    }

    #[test]
    fn what_is_no_list_of_regions_is_refused() {
        for text in ["x", "{}", "[1]", "[{}]", r#"[{"size":-1}]"#, "[]]"] {
            assert!(matches!(hear(&[text.as_bytes()]), Err(HandshakeError::Json(_))), "{text}");
        }
    }

    #[test]
    fn length_and_pieces_are_bounded() {
        let spaces = vec![b' '; MAX_BYTES + 1];
        assert!(matches!(hear(&[&spaces]), Err(HandshakeError::TooLong)));
        assert!(matches!(hear(&[b" ".as_slice(); MAX_PIECES + 1]), Err(HandshakeError::TooLong)));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in vec(any::<u8>(), 1..200)) {
            prop_assert!(!matches!(hear(&[&bytes]), Ok(Some(_))));
        }
    }
}
