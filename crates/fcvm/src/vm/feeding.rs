//! The container's input, over one stream after the other.

use std::os::fd::OwnedFd;

use fcvm_link::relay::{Given, Giver, Next, Source};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

use super::{
    detach_keys::DetachKeys,
    input::{End, Typed, reader},
};

/// Brings input to the guest, its end as well, until the guest has all of it, the user leaves or no stream can come
/// any more. Each stream takes the place of the one before.
pub(super) async fn feed<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    mut streams: mpsc::Receiver<S>,
    from: OwnedFd,
    keys: Option<DetachKeys>,
) -> End {
    match Giver::default().give(&mut streams, &mut Input(reader(from, keys))).await {
        Given::Over => End::Over,
        Given::Left => End::Detached,
        Given::Violation => {
            tracing::warn!("the guest's account of its input cannot be: it gets no more");
            End::Over
        }
    }
}

struct Input(mpsc::Receiver<Typed>);

impl Source for Input {
    async fn next(&mut self) -> Next {
        match self.0.recv().await {
            Some(Typed::Bytes(bytes)) => Next::Bytes(bytes),
            Some(Typed::Keys) => Next::Leave,
            None => Next::End,
        }
    }
}
