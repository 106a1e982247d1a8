//! Messages with descriptors, on a socket that keeps them apart.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};

/// With a message come so many descriptors at the most: the kernel's `SCM_MAX_FD`.
pub const MAX_DESCRIPTORS: usize = 253;

/// Both ends.
///
/// # Errors
/// Where there are no more sockets to be had.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message, which is not empty, and descriptors with it.
///
/// # Errors
/// Where the other end is closed.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], with: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !with.is_empty() && !control.push(SendAncillaryMessage::ScmRights(with)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message: its length, and the descriptors that came with it. `None` where the other end is
/// closed.
///
/// # Errors
/// The kernel's.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            // So an end is told where something was left unread.
            Err(Errno::CONNRESET) => return Ok(None),
            received => break received?,
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            descriptors.extend(some);
        }
    }
    Ok((received.bytes > 0).then_some((received.bytes, descriptors)))
}

/// Waits until there is a message, or the other end is closed; `false` where it is too late for that.
///
/// # Errors
/// The kernel's.
pub fn wait(socket: BorrowedFd<'_>, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&socket, PollFlags::IN)], Some(&left)) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::{fd::AsFd as _, unix::net::UnixStream},
    };

    use super::*;

    #[test]
    fn messages_stay_apart_and_descriptors_come_with_them() {
        let (near, far) = pair().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        send(near.as_fd(), b"first", &[]).unwrap();
        send(near.as_fd(), &[0], &[theirs.as_fd(), near.as_fd()]).unwrap();
        let mut buffer = [0; 100];
        let (length, descriptors) = receive(far.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (b"first".as_slice(), 0));
        let (_, mut descriptors) = receive(far.as_fd(), &mut buffer).unwrap().unwrap();
        assert_eq!(descriptors.len(), 2);
        UnixStream::from(descriptors.remove(0)).write_all(b"x").unwrap();
        ours.read_exact(&mut buffer[..1]).unwrap();
        assert_eq!(buffer[0], b'x');
        drop((near, descriptors));
        assert!(receive(far.as_fd(), &mut buffer).unwrap().is_none());
    }
}
