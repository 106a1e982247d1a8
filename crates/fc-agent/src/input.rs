//! The container's input, over one stream of the host after the other: see [`fcvm_proto::input`].

use std::sync::Arc;

use fcvm_proto::input::{COUNT, HEADER, piece_length};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf, split},
    sync::{Mutex, mpsc},
};

use crate::descriptor::Descriptor;

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;

/// Input from streams of the host: for all runs of the container, one after the other.
#[derive(Debug)]
pub(crate) struct Input<S>(Arc<Mutex<State<S>>>);

impl<S> Clone for Input<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite> Input<S> {
    pub(crate) fn new(coming: mpsc::Receiver<S>) -> Self {
        Self(Arc::new(Mutex::new(State { coming, current: None, taken: 0, is_over: false })))
    }

    /// Moves input to the container until either ends.
    pub(crate) async fn feed(self, pipe: Arc<Descriptor>) {
        let mut state = self.0.lock().await;
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = state.next(&mut chunk).await;
            if length == 0 {
                return;
            }
            if let Err(error) = pipe.write_all(&chunk[..length]).await {
                tracing::debug!(%error, "the container takes no more input");
                return;
            }
        }
    }
}

#[derive(Debug)]
struct State<S> {
    coming: mpsc::Receiver<S>,
    current: Option<Current<S>>,
    /// Bytes, of all streams.
    taken: u64,
    is_over: bool,
}

/// The stream that is read, and how far within a piece and an account it is.
#[derive(Debug)]
struct Current<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    header: [u8; HEADER],
    of_header: usize,
    left: usize,
    account: [u8; COUNT],
    /// Of the account, told already: all of them where it is told.
    of_account: usize,
}

impl<S: AsyncRead + AsyncWrite> Current<S> {
    /// One that is told first what has been taken.
    fn new(stream: S, taken: u64) -> Self {
        let (reader, writer) = split(stream);
        let account = taken.to_le_bytes();
        Self { reader, writer, header: [0; HEADER], of_header: 0, left: 0, account, of_account: 0 }
    }
}

impl<S: AsyncRead + AsyncWrite> State<S> {
    /// The next bytes, how many; 0 at the end. Cancel-safe.
    async fn next(&mut self, chunk: &mut [u8]) -> usize {
        while !self.is_over {
            let Some(current) = &mut self.current else {
                // The host has none as long as nobody has input for the container.
                let Some(stream) = self.coming.recv().await else { return 0 };
                self.current = Some(Current::new(stream, self.taken));
                continue;
            };
            if current.of_account == COUNT && current.account != self.taken.to_le_bytes() {
                (current.account, current.of_account) = (self.taken.to_le_bytes(), 0);
            }
            let (account, of_account) = (current.account, current.of_account);
            let Current { reader, writer, header, of_header, left, .. } = current;
            let wanted = if *left == 0 { &mut header[*of_header..] } else { &mut *chunk };
            let limit = wanted.len().min(if *left == 0 { HEADER } else { *left });
            let read = tokio::select! {
                biased;
                Some(stream) = self.coming.recv() => {
                    self.current = Some(Current::new(stream, self.taken));
                    continue;
                }
                told = writer.write(&account[of_account..]), if of_account < COUNT => match told {
                    Ok(told @ 1..) => {
                        current.of_account += told;
                        continue;
                    }
                    _ => 0,
                },
                read = reader.read(&mut wanted[..limit]) => read.unwrap_or_default(),
            };
            if read == 0 {
                // Its end has come by itself: the next stream goes on here.
                self.current = None;
            } else if *left > 0 {
                *left -= read;
                self.taken += read as u64;
                return read;
            } else {
                *of_header += read;
                if *of_header == HEADER {
                    *of_header = 0;
                    match piece_length(*header) {
                        Some(0) => self.is_over = true,
                        Some(length) => *left = length,
                        None => self.current = None,
                    }
                }
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use fcvm_proto::input::header;
    use tokio::io::{DuplexStream, duplex};

    use super::*;

    fn state() -> (mpsc::Sender<DuplexStream>, State<DuplexStream>) {
        let (sender, coming) = mpsc::channel(2);
        (sender, State { coming, current: None, taken: 0, is_over: false })
    }

    fn piece(bytes: &[u8]) -> Vec<u8> {
        [&header(bytes)[..], bytes].concat()
    }

    async fn account(stream: &mut DuplexStream) -> u64 {
        let mut count = [0; COUNT];
        stream.read_exact(&mut count).await.unwrap();
        u64::from_le_bytes(count)
    }

    #[tokio::test]
    async fn the_next_stream_is_told_where_to_go_on() {
        let (streams, mut state) = state();
        let mut chunk = [0; 4];
        let (mut first, other) = duplex(64);
        streams.send(other).await.unwrap();
        // Half of a piece, cut in the middle of a header.
        first.write_all(&[&piece(b"hello")[..], &piece(b"abc")[..2]].concat()).await.unwrap();
        assert_eq!(state.next(&mut chunk).await, 4);
        assert_eq!(&chunk, b"hell");
        assert_eq!(state.next(&mut chunk).await, 1);
        assert_eq!(account(&mut first).await, 0);
        drop(first);
        let (mut second, other) = duplex(64);
        streams.send(other).await.unwrap();
        second.write_all(&piece(b"abc")).await.unwrap();
        assert_eq!(state.next(&mut chunk).await, 3);
        assert_eq!((&chunk[..3], account(&mut second).await), (&b"abc"[..], 5));
        // One that comes while another seems to be well takes its place.
        let (mut third, other) = duplex(64);
        streams.send(other).await.unwrap();
        third.write_all(&[piece(b"x"), piece(b"")].concat()).await.unwrap();
        assert_eq!(state.next(&mut chunk).await, 1);
        assert_eq!(account(&mut third).await, 8);
        assert_eq!(state.next(&mut chunk).await, 0);
        assert_eq!(account(&mut third).await, 9);
        assert_eq!(state.next(&mut chunk).await, 0, "the end stays the end");
    }

    #[tokio::test]
    async fn a_piece_that_cannot_be_is_not_read() {
        let (streams, mut state) = state();
        let (mut first, other) = duplex(64);
        streams.send(other).await.unwrap();
        first.write_all(&[255; HEADER]).await.unwrap();
        drop(streams);
        assert_eq!(state.next(&mut [0; 4]).await, 0);
        assert!(!state.is_over && state.current.is_none());
    }
}
