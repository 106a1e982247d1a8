//! The container's outputs, over one stream of the host after the other.

use std::sync::Arc;

use fcvm_link::{
    Stream,
    relay::{Given, Giver, Next, Source},
};
use tokio::sync::{Mutex, Notify, mpsc, mpsc::error::TrySendError, watch};

use crate::descriptor::Descriptor;

/// Bytes moved at a time.
const CHUNK: usize = 64 << 10;

/// Streams for one output, for each run others, and the news that nobody reads it any more.
#[derive(Debug, Clone)]
pub(crate) struct OutputStreams {
    streams: Arc<Mutex<Coming>>,
    /// Whether it rests.
    rests: watch::Receiver<bool>,
    closed: Arc<Notify>,
}

/// The other end of these.
#[derive(Debug)]
pub(crate) struct Outlet {
    streams: mpsc::Sender<Stream>,
    rests: watch::Sender<bool>,
    closed: Arc<Notify>,
}

impl Outlet {
    /// There is another stream. One that rests goes on with it.
    ///
    /// # Errors
    /// Where nobody wants it.
    pub(crate) fn attach(&self, stream: Stream) -> Result<(), TrySendError<Stream>> {
        self.streams.try_send(stream)?;
        self.go_on();
        Ok(())
    }

    /// Nothing more goes to the host that is there now, until [`go_on`](Self::go_on): another host may be there
    /// next, for which that would be lost.
    pub(crate) fn rest(&self) {
        self.rests.send_replace(true);
    }

    /// It goes on where it was.
    pub(crate) fn go_on(&self) {
        self.rests.send_replace(false);
    }

    /// Nobody reads it any more.
    pub(crate) fn close(&self) {
        self.closed.notify_one();
    }
}

#[derive(Debug)]
struct Coming {
    streams: mpsc::Receiver<Stream>,
    /// Of this run, or of the one before.
    giver: Giver,
}

impl OutputStreams {
    /// Room for so many streams that wait.
    pub(crate) fn new(queue: usize) -> (Outlet, Self) {
        let (sender, streams) = mpsc::channel(queue);
        let (resting, rests) = watch::channel(false);
        let closed = Arc::new(Notify::new());
        let coming = Arc::new(Mutex::new(Coming { streams, giver: Giver::default() }));
        let outlet = Outlet { streams: sender, rests: resting, closed: Arc::clone(&closed) };
        (outlet, Self { streams: coming, rests, closed })
    }
}

/// Moves a pipe's bytes to the host while somebody reads them. Dropping the
/// pipe then makes the container's next write fail, as in any pipeline.
pub(crate) async fn output(pipe: Arc<Descriptor>, host: OutputStreams) {
    tokio::select! {
        () = async { drain(pipe, host.rests, &mut *host.streams.lock().await).await } => {}
        () = host.closed.notified() => {}
    }
}

/// Moves a pipe's bytes to the host until it has all of them, and knows that.
async fn drain(pipe: Arc<Descriptor>, rests: watch::Receiver<bool>, Coming { streams, giver }: &mut Coming) {
    *giver = Giver::after(giver.taker());
    let given = giver.give(streams, &mut Output { pipe, rests, chunk: vec![0; CHUNK] }).await;
    if given == Given::Violation {
        tracing::warn!("the host's account of an output cannot be: it gets no more of it");
    }
}

/// An output of the container.
struct Output {
    pipe: Arc<Descriptor>,
    rests: watch::Receiver<bool>,
    chunk: Vec<u8>,
}

impl Source for Output {
    async fn next(&mut self) -> Next {
        // Who could end this lives as long as the agent.
        let read = loop {
            let went_on = self.rests.wait_for(|rests| !rests).await.is_ok();
            tokio::select! {
                biased;
                _ = self.rests.changed(), if went_on => {}
                read = self.pipe.read(&mut self.chunk) => break read,
            }
        };
        match read {
            Ok(0) => Next::End,
            Ok(read) => Next::Bytes(self.chunk[..read].to_vec()),
            // So a terminal tells that its other end is closed; a pipe does not fail.
            Err(error) => {
                tracing::debug!(%error, "the container's output is at its end");
                Next::End
            }
        }
    }
}
