//! Many streams on one pipe, by yamux.

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use fcvm_proto::Port;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{mpsc, oneshot},
};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt as _, TokioAsyncReadCompatExt as _};

/// Streams that may be open at once on one pipe.
const MAX_STREAMS: usize = 512;
/// Bytes that all streams together may have in flight towards us: yamux asks
/// for 256 KiB a stream at least; the rest lets busy streams grow their windows.
const RECEIVE_WINDOW: usize = MAX_STREAMS * (256 << 10) + (32 << 20);
/// Streams that were opened by the other side and not yet accepted.
const BACKLOG: usize = 16;

/// Which end of the pipe we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The host: `fcvm`.
    Host,
    /// The guest: `fc-agent`.
    Guest,
}

/// The link is gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The session ended.
    #[error("the link to the other side is closed")]
    Closed,
    /// The stream broke.
    #[error("a stream of the link broke")]
    Io(#[from] io::Error),
}

/// Both directions of a link.
#[derive(Debug)]
pub struct Link {
    /// Opens streams.
    pub opener: Opener,
    /// Streams the other side opens.
    pub incoming: Incoming,
}

/// Opens streams to the other side.
#[derive(Debug, Clone)]
pub struct Opener {
    /// Shared by all copies, so that all lead the same way.
    requests: Arc<Mutex<Requests>>,
}

/// Where streams are asked for.
type Requests = mpsc::Sender<oneshot::Sender<yamux::Stream>>;

impl Opener {
    /// Opens a stream to a port.
    ///
    /// # Errors
    /// Where the session ended.
    pub async fn open(&self, port: Port) -> Result<Stream, LinkError> {
        let (reply, stream) = oneshot::channel();
        let requests = self.requests().clone();
        requests.send(reply).await.map_err(|_| LinkError::Closed)?;
        let mut stream = stream.await.map_err(|_| LinkError::Closed)?.compat();
        stream.write_all(&port.number().to_le_bytes()).await?;
        stream.flush().await?;
        Ok(Stream(stream))
    }

    /// From now on this one and its copies open streams where the other one does: the session that they
    /// were of has been followed by another.
    pub fn lead_to(&self, other: &Self) {
        let requests = other.requests().clone();
        *self.requests() = requests;
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Streams that the other side opens.
#[derive(Debug)]
pub struct Incoming {
    streams: mpsc::Receiver<(Port, Stream)>,
}

impl Incoming {
    /// The next stream; `None` where the session ended.
    pub async fn accept(&mut self) -> Option<(Port, Stream)> {
        self.streams.recv().await
    }
}

/// A stream with flow control of its own; shutting it down ends one direction.
pub struct Stream(Compat<yamux::Stream>);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({})", self.0.get_ref().id())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Multiplexes a pipe. The returned future does all the work and ends with the
/// session: spawn it.
pub fn multiplex<T>(
    pipe: T,
    role: Role,
) -> (Link, impl Future<Output = Result<(), yamux::ConnectionError>> + Send)
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(RECEIVE_WINDOW));
    // Large enough that headers do not count, small enough that streams take turns.
    config.set_split_send_size(64 << 10);
    let mode = match role {
        Role::Host => yamux::Mode::Client,
        Role::Guest => yamux::Mode::Server,
    };
    let connection = yamux::Connection::new(pipe.compat(), config, mode);
    let (requests, wanted) = mpsc::channel(BACKLOG);
    let (accepted, streams) = mpsc::channel(BACKLOG);
    let opener = Opener { requests: Arc::new(Mutex::new(requests)) };
    let link = Link { opener, incoming: Incoming { streams } };
    (link, drive(connection, wanted, accepted))
}

async fn drive<T>(
    mut connection: yamux::Connection<Compat<T>>,
    mut wanted: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    accepted: mpsc::Sender<(Port, Stream)>,
) -> Result<(), yamux::ConnectionError>
where
    Compat<T>: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let mut opening = None;
    std::future::poll_fn(|cx| {
        loop {
            if opening.is_none()
                && let Poll::Ready(Some(request)) = wanted.poll_recv(cx)
            {
                opening = Some(request);
            }
            let mut opened = false;
            if opening.is_some()
                && let Poll::Ready(stream) = connection.poll_new_outbound(cx)
                && let Some(request) = opening.take()
            {
                // Whoever asked may be gone; dropping the stream closes it.
                drop(request.send(stream?));
                opened = true;
            }
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(stream)) => announce(stream?, accepted.clone()),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending if opened => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Reads a new stream's port in a task of its own, so that a silent stream delays no other.
fn announce(stream: yamux::Stream, accepted: mpsc::Sender<(Port, Stream)>) {
    tokio::spawn(async move {
        let mut stream = stream.compat();
        let mut number = [0; 4];
        if let Err(error) = stream.read_exact(&mut number).await {
            tracing::debug!(%error, "a stream ended before it named its port");
            return;
        }
        match Port::from_number(u32::from_le_bytes(number)) {
            Some(port) => drop(accepted.send((port, Stream(stream))).await),
            None => {
                tracing::warn!(port = u32::from_le_bytes(number), "a stream to an unknown port was closed")
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(buffer: usize) -> (Link, Link) {
        let (near, far) = tokio::io::duplex(buffer);
        let (host, host_driver) = multiplex(near, Role::Host);
        let (guest, guest_driver) = multiplex(far, Role::Guest);
        tokio::spawn(async move { drop(host_driver.await) });
        tokio::spawn(async move { drop(guest_driver.await) });
        (host, guest)
    }

    #[tokio::test]
    async fn either_side_opens_streams_and_half_closes_them() {
        let (mut host, mut guest) = pair(100);
        for (opener, incoming) in
            [(&host.opener.clone(), &mut guest.incoming), (&guest.opener.clone(), &mut host.incoming)]
        {
            let mut near = opener.open(Port::Stdout).await.unwrap();
            let (port, mut far) = incoming.accept().await.unwrap();
            assert_eq!(port, Port::Stdout);
            near.write_all(b"question").await.unwrap();
            near.shutdown().await.unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            far.write_all(b"answer").await.unwrap();
            far.shutdown().await.unwrap();
            near.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "questionanswer");
        }
    }

    /// A reader that stops must not stop the others (and must stop its own writer).
    #[tokio::test]
    async fn a_stopped_stream_stalls_alone() {
        let (host, mut guest) = pair(1 << 16);
        let mut stuck = host.opener.open(Port::Stdout).await.unwrap();
        let (_, stuck_far) = guest.incoming.accept().await.unwrap();
        let filler = tokio::spawn(async move {
            let chunk = vec![1; 64 << 10];
            loop {
                stuck.write_all(&chunk).await.unwrap();
            }
        });
        let mut live = host.opener.open(Port::Stderr).await.unwrap();
        let (_, mut live_far) = guest.incoming.accept().await.unwrap();
        let mut buffer = vec![0; 64 << 10];
        for round in 0..500 {
            live.write_all(&vec![u8::try_from(round % 251).unwrap(); 64 << 10]).await.unwrap();
            live.flush().await.unwrap();
            live_far.read_exact(&mut buffer).await.unwrap();
            assert_eq!(usize::from(buffer[0]), round % 251);
        }
        assert!(!filler.is_finished(), "the stopped stream's writer must wait for its reader");
        filler.abort();
        drop(stuck_far);
    }

    #[tokio::test]
    async fn the_end_of_the_pipe_ends_everything() {
        let (near, far) = tokio::io::duplex(100);
        let (mut host, driver) = multiplex(near, Role::Host);
        tokio::spawn(async move { drop(driver.await) });
        drop(far);
        assert!(host.incoming.accept().await.is_none());
        assert!(host.opener.open(Port::Control).await.is_err());
    }
}
