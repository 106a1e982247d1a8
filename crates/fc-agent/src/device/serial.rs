//! The virtio-serial port that leads to the host.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
};

use anyhow::Context as _;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

/// Name of the port, given by the host's hypervisor.
const PORT_NAME: &str = "org.fcvm.agent";
const PORTS: &str = "/sys/class/virtio-ports";

/// The port. A read of 0 bytes means that no host is connected; the next read
/// waits for one. The kernel then reports "readable" all the time, so what is
/// waited for is the edge, which `AsyncFd` does.
#[derive(Debug)]
pub(crate) struct Port {
    file: AsyncFd<OwnedFd>,
}

impl Port {
    /// Opens the port.
    ///
    /// # Errors
    /// Where the machine has none of that name.
    pub(super) fn open() -> anyhow::Result<Self> {
        let path = find(Path::new(PORTS)).with_context(|| format!("no virtio-serial port `{PORT_NAME}`"))?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, Mode::empty())
            .with_context(|| format!("failed to open `{}`", path.display()))?;
        Ok(Self { file: crate::sys::watch(file)? })
    }
}

/// The device node of our port: its number varies.
fn find(ports: &Path) -> io::Result<PathBuf> {
    for entry in fs::read_dir(ports)? {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.file.poll_read_ready(cx))?;
            match rustix::io::read(self.file.get_ref(), buf.initialize_unfilled()) {
                Ok(read) => {
                    if read == 0 {
                        ready.clear_ready();
                    }
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.file.poll_write_ready(cx))?;
            match rustix::io::write(self.file.get_ref(), buf) {
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                result => return Poll::Ready(result.map_err(io::Error::from)),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
