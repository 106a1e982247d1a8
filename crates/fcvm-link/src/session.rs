//! Sessions: the host connects, and reconnects, to a pipe that keeps stale bytes.
//!
//! States of the guest's end:
//!
//! ```text
//!   searching --key and id found--> answering --> in session
//!       ^                                             |
//!       +-- host gone (read gives 0), or a new key ---+
//! ```
//! A preamble seen within a session ends it at once: the host has reconnected,
//! and what was cut in the middle is nobody's any more.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use fcvm_proto::session::{KEY_LEN, LinkKey, Matcher, SessionId};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// Bytes of an earlier session that may still be in the pipe: what the host
/// skips before it gives up. The pipe itself holds far less.
const MAX_STALE: usize = 64 << 20;

/// Opens a session from the host: sends the preamble, skips stale bytes up to
/// the guest's answer. Waits for a guest that is not there yet.
///
/// # Errors
/// Where the pipe breaks, or carries [`MAX_STALE`] bytes without an answer.
pub async fn connect<T>(mut pipe: T, key: LinkKey, id: SessionId) -> io::Result<HostSession<T>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    pipe.write_all(&key.preamble(id)).await?;
    pipe.flush().await?;
    let mut matcher = Matcher::new(&key.answer(id));
    let mut buffer = vec![0; 64 << 10];
    let mut skipped = 0;
    loop {
        let read = pipe.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(used) = matcher.feed(&buffer[..read]) {
            buffer.truncate(read);
            buffer.drain(..used);
            return Ok(HostSession { pipe, early: buffer });
        }
        skipped += read;
        if skipped > MAX_STALE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the guest does not answer, but sends other bytes",
            ));
        }
    }
}

/// The host's end of an open session.
#[derive(Debug)]
pub struct HostSession<T> {
    pipe: T,
    /// Came in one read with the end of the answer.
    early: Vec<u8>,
}

impl<T: AsyncRead + Unpin> AsyncRead for HostSession<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.pipe).poll_read(cx, buf);
        }
        let length = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early[..length]);
        this.early.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HostSession<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

/// The guest's end of the pipe, over many sessions.
///
/// A read of 0 bytes from `D` means that no host is connected *now*; the next
/// read must wait until that changes.
#[derive(Debug)]
pub struct GuestPipe<D> {
    key: LinkKey,
    shared: Arc<Mutex<Shared<D>>>,
}

#[derive(Debug)]
struct Shared<D> {
    device: D,
    matcher: Matcher,
    /// Read behind a key, not yet looked at.
    behind_key: Option<Vec<u8>>,
}

impl<D: AsyncRead + AsyncWrite + Unpin> GuestPipe<D> {
    /// The pipe of a device.
    pub fn new(device: D, key: LinkKey) -> Self {
        let shared = Shared { device, matcher: Matcher::new(&key.0), behind_key: None };
        Self { key, shared: Arc::new(Mutex::new(shared)) }
    }

    /// Waits for a host to open a session and answers it.
    ///
    /// # Errors
    /// Where the device fails.
    pub async fn accept(&mut self) -> io::Result<(SessionId, GuestSession<D>)> {
        loop {
            let mut session = GuestSession { shared: Arc::clone(&self.shared), over: false };
            let Some(mut early) = self.find_key().await? else { continue };
            // A key within these 16 bytes would be a host that came and went at once.
            while early.len() < KEY_LEN && !session.over {
                let mut byte = [0];
                if session.read(&mut byte).await? == 1 {
                    early.push(byte[0]);
                }
            }
            if session.over {
                continue;
            }
            let rest = early.split_off(KEY_LEN);
            let Ok(id) = <[u8; KEY_LEN]>::try_from(early) else { continue };
            let id = SessionId(id);
            session.write_all(&self.key.answer(id)).await?;
            session.flush().await?;
            // Nothing follows the preamble before the host saw the answer.
            if rest.is_empty() {
                return Ok((id, session));
            }
        }
    }

    /// Reads up to the next key; what came behind it. `None` where the host went away.
    async fn find_key(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; 4 << 10];
        loop {
            if let Some(rest) = lock(&self.shared).behind_key.take() {
                return Ok(Some(rest));
            }
            let mut session = GuestSession { shared: Arc::clone(&self.shared), over: false };
            if session.read(&mut buffer).await? == 0 && lock(&self.shared).behind_key.is_none() {
                return Ok(None);
            }
        }
    }
}

/// The guest's end of one session: at its end where the host goes away or opens another.
#[derive(Debug)]
pub struct GuestSession<D> {
    shared: Arc<Mutex<Shared<D>>>,
    over: bool,
}

fn lock<D>(shared: &Mutex<Shared<D>>) -> MutexGuard<'_, Shared<D>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<D: AsyncRead + Unpin> AsyncRead for GuestSession<D> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(Ok(()));
        }
        let mut shared = lock(&this.shared);
        let before = buf.filled().len();
        ready!(Pin::new(&mut shared.device).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if read.is_empty() {
            this.over = true;
        } else if let Some(used) = shared.matcher.feed(read) {
            shared.behind_key = Some(read[used..].to_vec());
            buf.set_filled(before);
            this.over = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl<D: AsyncWrite + Unpin> AsyncWrite for GuestSession<D> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut lock(&self.shared).device).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.shared).device).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The device outlives its sessions.
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::DuplexStream, sync::mpsc, task::yield_now};

    use super::*;

    const KEY: LinkKey = LinkKey(*b"0123456789abcdef");

    /// A device as virtio-serial behaves: reads give 0 once when the host goes,
    /// then wait; stale bytes of the guest meet the next host.
    struct Device {
        hosts: mpsc::UnboundedReceiver<DuplexStream>,
        host: Option<DuplexStream>,
    }

    impl AsyncRead for Device {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let this = &mut *self;
            if this.host.is_none() {
                this.host = Some(ready!(this.hosts.poll_recv(cx)).ok_or(io::ErrorKind::NotConnected)?);
            }
            let Some(host) = &mut this.host else { return Poll::Pending };
            let before = buf.filled().len();
            ready!(Pin::new(host).poll_read(cx, buf))?;
            if buf.filled().len() == before {
                this.host = None;
            }
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Device {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            match &mut self.host {
                Some(host) => Pin::new(host).poll_write(cx, buf),
                None => Poll::Ready(Ok(buf.len())),
            }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn pipe() -> (mpsc::UnboundedSender<DuplexStream>, GuestPipe<Device>) {
        let (connect, hosts) = mpsc::unbounded_channel();
        (connect, GuestPipe::new(Device { hosts, host: None }, KEY))
    }

    /// The guest: greets each session with its id and echoes until it ends.
    fn echo(mut pipe: GuestPipe<Device>) {
        tokio::spawn(async move {
            loop {
                let (id, mut session) = pipe.accept().await?;
                session.write_all(&id.0).await?;
                let mut buffer = [0; 7];
                loop {
                    match session.read(&mut buffer).await? {
                        0 => break,
                        read => drop(session.write_all(&buffer[..read]).await),
                    }
                }
            }
            #[expect(unreachable_code, reason = "names the type of the error")]
            io::Result::Ok(())
        });
    }

    #[tokio::test]
    async fn each_reconnection_finds_a_session_of_its_own_whatever_was_cut() {
        let (connect_device, guest) = pipe();
        echo(guest);
        for round in 0..50u8 {
            let (near, far) = tokio::io::duplex(64);
            connect_device.send(far).unwrap();
            let id = SessionId([round; KEY_LEN]);
            let mut session = connect(near, KEY, id).await.unwrap();
            let mut greeting = [0; KEY_LEN];
            session.read_exact(&mut greeting).await.unwrap();
            assert_eq!(greeting, id.0);
            session.write_all(b"ping").await.unwrap();
            let mut answer = [0; 4];
            session.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"ping");
            // Leaves bytes behind that nobody will read, half of them part of a key.
            session.write_all(&KEY.0[..usize::from(round % 16)]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_preamble_in_a_running_session_starts_the_next() {
        let (connect_device, mut guest) = pipe();
        let (mut near, far) = tokio::io::duplex(1 << 10);
        connect_device.send(far).unwrap();
        near.write_all(b"stale bytes").await.unwrap();
        near.write_all(&KEY.preamble(SessionId([1; KEY_LEN]))).await.unwrap();
        let (id, mut first) = guest.accept().await.unwrap();
        assert_eq!(id, SessionId([1; KEY_LEN]));
        near.write_all(b"half a fra").await.unwrap();
        let mut text = [0; 10];
        first.read_exact(&mut text).await.unwrap();
        // Without a disconnection the guest could notice.
        near.write_all(&KEY.preamble(SessionId([2; KEY_LEN]))).await.unwrap();
        // Bytes of a key are not held back, the session is over all the same.
        let mut rest = Vec::new();
        first.read_to_end(&mut rest).await.unwrap();
        assert!(KEY.0.starts_with(&rest));
        let (id, _second) = guest.accept().await.unwrap();
        assert_eq!(id, SessionId([2; KEY_LEN]));
        assert!(first.write_all(b"late").await.is_err());
    }

    #[tokio::test]
    async fn a_host_does_not_wait_for_ever_among_foreign_bytes() {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let noise = tokio::spawn(async move {
            let chunk = vec![0; 1 << 20];
            while far.write_all(&chunk).await.is_ok() {
                yield_now().await;
            }
        });
        assert!(connect(near, KEY, SessionId([0; KEY_LEN])).await.is_err());
        noise.await.unwrap();
    }
}
