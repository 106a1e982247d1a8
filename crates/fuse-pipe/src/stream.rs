//! What a lane runs over.
//!
//! One descriptor, for both directions: a connected Unix or vsock socket, or a device such as a port of a
//! virtio console. It blocks, as a socket does; underneath both kinds can also be tried, so that a thread
//! can wait for a stream and for its end at once.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl, fstat},
    io::{Errno, read, write},
    net::{RecvFlags, SendFlags, Shutdown, SocketType, recv, send, shutdown, sockopt::socket_type},
};

/// A connected stream of bytes.
#[derive(Debug)]
pub struct Stream {
    descriptor: OwnedFd,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Each call says whether it blocks, and that it wants no signal where nobody reads.
    Socket,
    /// The descriptor itself does not block.
    Other,
}

impl Stream {
    /// A stream of this descriptor, which is readable and writable. One that is no socket is made
    /// nonblocking, for all who have it open.
    ///
    /// # Errors
    /// Where it is not open both ways, or a socket that keeps messages apart.
    pub fn new(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        let descriptor = descriptor.into();
        let flags = fcntl_getfl(&descriptor)?;
        if flags & OFlags::RWMODE != OFlags::RDWR {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not open for reading and writing"));
        }
        let kind = if FileType::from_raw_mode(fstat(&descriptor)?.st_mode) == FileType::Socket {
            if socket_type(&descriptor)? != SocketType::STREAM {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a stream socket"));
            }
            Kind::Socket
        } else {
            fcntl_setfl(&descriptor, flags | OFlags::NONBLOCK)?;
            Kind::Other
        };
        Ok(Self { descriptor, kind })
    }

    /// The same stream for another thread.
    ///
    /// # Errors
    /// Where there are too many descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { descriptor: self.descriptor.try_clone()?, kind: self.kind })
    }

    /// Ends a socket in both directions, for all who have it open: who waits for it wakes, here and at
    /// the other end. What is no socket ends when all have closed it, so that this does nothing to it.
    ///
    /// # Errors
    /// Where the kernel refuses; not where the socket has ended already.
    pub fn shutdown(&self) -> io::Result<()> {
        if self.kind == Kind::Other {
            return Ok(());
        }
        match shutdown(&self.descriptor, Shutdown::Both) {
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reads what is there; `None` where nothing is yet, 0 at the end.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        attempt(|| match self.kind {
            Kind::Socket => recv(&self.descriptor, &mut *buffer, RecvFlags::DONTWAIT).map(|(read, _)| read),
            Kind::Other => read(&self.descriptor, &mut *buffer),
        })
    }

    /// Writes what there is room for; `None` where there is none yet.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        attempt(|| match self.kind {
            Kind::Socket => send(&self.descriptor, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Kind::Other => write(&self.descriptor, bytes),
        })
    }

    /// Waits within the call: a socket's descriptor blocks, unless somebody else who has it open says that it
    /// does not.
    fn blocking_read(&self, buffer: &mut [u8]) -> Result<Option<usize>, Errno> {
        match self.kind {
            Kind::Socket => {
                attempt(|| recv(&self.descriptor, &mut *buffer, RecvFlags::empty()).map(|(read, _)| read))
            }
            Kind::Other => self.try_read(buffer),
        }
    }

    /// Whether [`shutdown`](Self::shutdown) wakes who waits.
    pub(crate) fn can_be_ended(&self) -> bool {
        self.kind == Kind::Socket
    }

    /// Waits for something to read; 0 at the end.
    pub(crate) fn wait_and_read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        loop {
            match self.blocking_read(buffer)? {
                Some(read) => return Ok(read),
                None => self.wait_without_end(PollFlags::IN)?,
            }
        }
    }

    /// See [`blocking_read`](Self::blocking_read).
    fn blocking_write(&self, bytes: &[u8]) -> Result<Option<usize>, Errno> {
        match self.kind {
            Kind::Socket => attempt(|| send(&self.descriptor, bytes, SendFlags::NOSIGNAL)),
            Kind::Other => self.try_write(bytes),
        }
    }

    /// Waits until one of the two can be tried again.
    fn wait_without_end(&self, events: PollFlags) -> Result<(), Errno> {
        match poll(&mut [PollFd::new(&self.descriptor, events)], None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The same, with a deadline.
    fn wait(&self, events: PollFlags, deadline: Instant) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.descriptor, events)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// The same stream for whoever has no more time than this.
    pub(crate) fn until(&self, deadline: Instant) -> Until<'_> {
        Until { stream: self, deadline }
    }
}

/// `None` where it would block.
fn attempt<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<Option<T>, Errno> {
    loop {
        match call() {
            Ok(value) => return Ok(Some(value)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A stream, and how long to wait for it.
#[derive(Debug)]
pub(crate) struct Until<'a> {
    stream: &'a Stream,
    deadline: Instant,
}

impl Read for Until<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.try_read(buffer)? {
                Some(read) => return Ok(read),
                None => self.stream.wait(PollFlags::IN, self.deadline)?,
            }
        }
    }
}

impl Write for Until<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.stream.try_write(bytes)? {
                Some(written) => return Ok(written),
                None => self.stream.wait(PollFlags::OUT, self.deadline)?,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.wait_and_read(buffer)?)
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.blocking_write(bytes)? {
                Some(written) => return Ok(written),
                None => self.wait_without_end(PollFlags::OUT)?,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::unix::net::{UnixDatagram, UnixStream},
        thread,
    };

    use super::*;

    #[test]
    fn shutdown_wakes_a_reader() {
        let (near, _far) = UnixStream::pair().unwrap();
        let stream = Stream::new(near).unwrap();
        let other = stream.try_clone().unwrap();
        let reader = thread::spawn(move || (&other).read(&mut [0; 1]).unwrap());
        stream.shutdown().unwrap();
        assert_eq!(reader.join().unwrap(), 0);
        stream.shutdown().unwrap();
    }

    #[test]
    fn what_is_no_stream_for_both_directions_is_refused() {
        assert!(Stream::new(UnixDatagram::pair().unwrap().0).is_err());
        assert!(Stream::new(File::open("/dev/null").unwrap()).is_err());
    }

    #[test]
    fn a_read_has_a_deadline() {
        let (near, _far) = UnixStream::pair().unwrap();
        let stream = Stream::new(near).unwrap();
        let error = stream.until(Instant::now()).read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn a_writer_without_a_reader_gets_an_error_and_no_signal() {
        let (near, far) = UnixStream::pair().unwrap();
        drop(far);
        assert_eq!(Stream::new(near).unwrap().try_write(b"x"), Err(Errno::PIPE));
    }
}
