//! Typed messages on a stream.

use std::{io, marker::PhantomData};

use fcvm_proto::frame::{self, FrameError};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A message could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The stream broke.
    #[error("the stream broke")]
    Io(#[from] io::Error),
    /// The other side, or this one, broke the protocol.
    #[error("protocol violation")]
    Frame(#[from] FrameError),
}

/// Sends messages of type `T`.
#[derive(Debug)]
pub struct Sender<T, W> {
    stream: W,
    _message: PhantomData<fn(T)>,
}

impl<T: Serialize, W: AsyncWrite + Unpin> Sender<T, W> {
    /// A sender on the writing half of a stream.
    pub fn new(stream: W) -> Self {
        Self { stream, _message: PhantomData }
    }

    /// The same sender for messages of another type.
    pub fn retype<U>(self) -> Sender<U, W> {
        Sender { stream: self.stream, _message: PhantomData }
    }

    /// Sends one message. Not cancel-safe: dropped half way, the stream is unusable.
    ///
    /// # Errors
    /// Where the stream broke or the message is too long.
    pub async fn send(&mut self, message: &T) -> Result<(), ChannelError> {
        self.stream.write_all(&frame::encode(message)?).await?;
        self.stream.flush().await?;
        Ok(())
    }
}

/// Receives messages of type `T`.
#[derive(Debug)]
pub struct Receiver<T, R> {
    stream: R,
    _message: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned, R: AsyncRead + Unpin> Receiver<T, R> {
    /// A receiver on the reading half of a stream.
    pub fn new(stream: R) -> Self {
        Self { stream, _message: PhantomData }
    }

    /// The same receiver for messages of another type.
    pub fn retype<U>(self) -> Receiver<U, R> {
        Receiver { stream: self.stream, _message: PhantomData }
    }

    /// The next message; `None` where the stream ended between two. Not
    /// cancel-safe: give it a task of its own.
    ///
    /// # Errors
    /// Where the stream broke, or what came is not a message.
    pub async fn receive(&mut self) -> Result<Option<T>, ChannelError> {
        let mut header = [0; frame::HEADER];
        match self.stream.read(&mut header).await? {
            0 => return Ok(None),
            read => self.stream.read_exact(&mut header[read..]).await?,
        };
        let length = frame::body_length(header)?;
        // Grows with what really arrives: a lie about the length costs nothing.
        let mut body = Vec::with_capacity(length.min(64 << 10));
        (&mut self.stream).take(length as u64).read_to_end(&mut body).await?;
        if body.len() < length {
            return Err(ChannelError::Io(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(Some(frame::decode(&body)?))
    }
}

#[cfg(test)]
mod tests {
    use fcvm_proto::ToGuest;

    use super::*;

    #[tokio::test]
    async fn messages_arrive_whole_and_in_order() {
        let (near, far) = tokio::io::duplex(3);
        let (mut sender, mut receiver) = (Sender::new(near), Receiver::<ToGuest, _>::new(far));
        let sending = tokio::spawn(async move {
            for signal in 0..100 {
                sender.send(&ToGuest::Signal(signal)).await.unwrap();
            }
        });
        for signal in 0..100 {
            assert_eq!(receiver.receive().await.unwrap(), Some(ToGuest::Signal(signal)));
        }
        sending.await.unwrap();
        assert_eq!(receiver.receive().await.unwrap(), None);
    }

    #[tokio::test]
    async fn lies_about_lengths_are_errors() {
        for (bytes, what) in
            [(&[255, 255, 255, 255][..], "huge"), (&[2, 0, 0, 0, 1], "cut"), (&[2, 0], "header")]
        {
            let mut receiver = Receiver::<ToGuest, _>::new(bytes);
            assert!(receiver.receive().await.is_err(), "{what}");
        }
    }
}
