//! The container's input, over one stream of the host after the other.

use std::sync::Arc;

use fcvm_link::relay::Taker;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    sync::{Mutex, mpsc},
};

use crate::descriptor::Descriptor;

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;
/// Who takes it: in each guest one for all runs, and each host has a giver of its own.
const ID: u64 = 0;

/// Input from streams of the host: for all runs of the container, one after the other.
#[derive(Debug)]
pub(crate) struct Input<S>(Arc<Mutex<Taker<S>>>);

impl<S> Clone for Input<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Input<S> {
    /// The host has no streams as long as nobody has input for the container.
    pub(crate) fn new(coming: mpsc::Receiver<S>) -> Self {
        Self(Arc::new(Mutex::new(Taker::new(ID, coming))))
    }

    /// Moves input to the container until either ends.
    pub(crate) async fn feed(self, pipe: Arc<Descriptor>) {
        let mut taker = self.0.lock().await;
        let mut chunk = vec![0; CHUNK];
        loop {
            let length = taker.read(&mut chunk).await.unwrap_or_default();
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
