//! Connections of the host over vsock, one at a time: the newest counts.
//!
//! The listener lives as long as the machine, also through snapshots, which end every connection.
//! Once it listens the agent knocks: it connects to the host for a moment, so that the host need not
//! try again and again.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use anyhow::Context as _;
use fcvm_proto::transport::VSOCK_PORT;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

/// The port of all hosts.
#[derive(Debug)]
pub(crate) struct Port {
    listener: VsockListener,
    host: Option<VsockStream>,
}

impl Port {
    /// Listens, and lets the host know.
    ///
    /// # Errors
    /// Where the machine has no vsock device.
    pub(super) fn open() -> anyhow::Result<Self> {
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, VSOCK_PORT))
            .context("failed to listen on vsock")?;
        tokio::spawn(async {
            // Nobody waits for it where the host has not started this machine, but restored it.
            if let Err(error) = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, VSOCK_PORT)).await {
                tracing::debug!(%error, "nobody hears the knock");
            }
        });
        Ok(Self { listener, host: None })
    }

    /// Takes the newest host that waits; whether there was one.
    fn poll_host(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (stream, peer) = ready!(self.listener.poll_accept(cx))?;
            // The machine's own programs can reach it too, where the kernel has a loopback.
            if peer.cid() == VMADDR_CID_HOST {
                self.host = Some(stream);
                return Poll::Ready(Ok(()));
            }
            tracing::warn!(cid = peer.cid(), "a connection that is not the host's was closed");
        }
    }
}

impl AsyncRead for Port {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let had = this.host.is_some();
        if let Poll::Ready(accepted) = this.poll_host(cx) {
            accepted?;
            if had {
                // The one before has gone; that there is another is for the next read.
                return Poll::Ready(Ok(()));
            }
        }
        let Some(host) = &mut this.host else { return Poll::Pending };
        let before = buf.filled().len();
        let read = ready!(Pin::new(host).poll_read(cx, buf));
        // A host that is killed and one that leaves are the same.
        if read.is_err() || buf.filled().len() == before {
            this.host = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().host {
            Some(host) => Pin::new(host).poll_write(cx, buf),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().host {
            Some(host) => Pin::new(host).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
