//! The device that leads to the host: what the kernel's parameter names.

mod serial;
mod vsock;

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use fcvm_proto::Transport;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The guest's end of the pipe, which outlives the hosts at its other end. A read of 0 bytes means
/// that the host has gone; the next read waits for one.
#[derive(Debug)]
pub(crate) enum Port {
    /// One pipe, for as long as the machine lives.
    Serial(serial::Port),
    /// A connection for each host.
    Vsock(vsock::Port),
}

impl Port {
    /// Opens the device.
    ///
    /// # Errors
    /// Where the machine has none of that kind.
    pub(crate) fn open(transport: Transport) -> anyhow::Result<Self> {
        Ok(match transport {
            Transport::VirtioSerial => Self::Serial(serial::Port::open()?),
            Transport::Vsock => Self::Vsock(vsock::Port::open()?),
        })
    }
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Serial(port) => Pin::new(port).poll_read(cx, buf),
            Self::Vsock(port) => Pin::new(port).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Serial(port) => Pin::new(port).poll_write(cx, buf),
            Self::Vsock(port) => Pin::new(port).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Serial(port) => Pin::new(port).poll_flush(cx),
            Self::Vsock(port) => Pin::new(port).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It outlives what uses it.
        Poll::Ready(Ok(()))
    }
}
