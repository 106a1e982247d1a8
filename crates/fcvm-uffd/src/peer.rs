//! The process whose memory is served.

use std::{
    io,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::sockopt::socket_peercred,
    process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal},
};

use crate::{sys, time::timespec};

/// The process whose memory is served: a VMM.
///
/// It is known by a descriptor, which cannot come to mean another process when its number is used anew.
#[derive(Debug)]
pub struct Peer {
    pid: Option<i32>,
    /// None where the process is unknown, or this one.
    pidfd: Option<OwnedFd>,
}

impl Peer {
    /// The process with that id.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        let process = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
        let pidfd = if process == getpid() { None } else { Some(pidfd_open(process, PidfdFlags::empty())?) };
        Ok(Self { pid: Some(pid), pidfd })
    }

    /// A process of which the caller takes care. It is not killed, and its end is not noticed: who has
    /// registered it must say that it is gone.
    #[must_use]
    pub fn unknown() -> Self {
        Self { pid: None, pidfd: None }
    }

    /// Who is at the other end of a connection.
    pub(crate) fn of_socket(socket: &UnixStream) -> io::Result<Self> {
        let id = socket_peercred(socket)?.pid;
        if id == getpid() {
            return Ok(Self { pid: Some(id.as_raw_nonzero().get()), pidfd: None });
        }
        let pidfd = match sys::peer_pidfd(socket.as_fd()) {
            // Before Linux 6.5.
            Err(Errno::NOPROTOOPT) => pidfd_open(id, PidfdFlags::empty())?,
            pidfd => pidfd?,
        };
        Ok(Self { pid: Some(id.as_raw_nonzero().get()), pidfd: Some(pidfd) })
    }

    /// Its id, for messages; where it is known.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }

    /// Kills it with SIGKILL. What has ended already is no error.
    ///
    /// # Errors
    /// It is unknown or this process, or may not be killed by this user.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pidfd) = &self.pidfd else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the process is unknown, or this one"));
        };
        match pidfd_send_signal(pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until it has ended, for a time; whether it has. One that is unknown has not.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let Some(pidfd) = &self.pidfd else { return false };
        let deadline = Instant::now() + patience;
        loop {
            let left = timespec(deadline.saturating_duration_since(Instant::now()));
            match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&left)) {
                Err(Errno::INTR) => {}
                ended => return ended == Ok(1),
            }
        }
    }

    /// Readable once it has ended.
    pub(crate) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        self.pidfd.as_ref().map(|pidfd| pidfd.as_fd())
    }
}
