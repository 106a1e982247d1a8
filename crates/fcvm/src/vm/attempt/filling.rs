//! A run's output: from the guest's streams, one after the other, to the log and to ours.

use std::pin::Pin;

use fcvm_link::{Opener, Stream, relay::Taker};
use fcvm_proto::Port;
use tokio::sync::{mpsc, watch};

use crate::vm::{
    VmError,
    outputs::{One, Outputs},
    run::random,
};

/// Takes all of a run's output.
pub(super) struct Filling<'a> {
    future: Pin<Box<dyn Future<Output = ()> + 'a>>,
    /// Outputs that are not at their end.
    left: watch::Receiver<usize>,
    streams: Vec<(Port, mpsc::Sender<Stream>)>,
    is_filled: bool,
}

impl<'a> Filling<'a> {
    /// For one run, of these outputs. Streams are still to be [opened](Self::open).
    ///
    /// # Errors
    /// Where the host has no random numbers.
    pub(super) fn new(outputs: &'a Outputs, ports: &[Port]) -> Result<Self, VmError> {
        let (ended, left) = watch::channel(ports.len());
        let mut all = Vec::new();
        let mut streams = Vec::new();
        for port in ports {
            let (sender, coming) = mpsc::channel(1);
            let taker = Taker::new(u64::from_le_bytes(random()?), coming);
            let output = if *port == Port::Stdout { &outputs.stdout } else { &outputs.stderr };
            all.push(fill(output, taker, ended.clone()));
            streams.push((*port, sender));
        }
        let future = Box::pin(async move {
            futures::future::join_all(all).await;
            // Of none.
            std::future::pending().await
        });
        Ok(Self { future, left, streams, is_filled: false })
    }

    /// Opens streams, in place of those before.
    pub(super) fn open(&self, opener: &Opener) {
        for (port, streams) in &self.streams {
            let (port, streams, opener) = (*port, streams.clone(), opener.clone());
            tokio::spawn(async move {
                match opener.open(port).await {
                    // This run's output may have come to its end.
                    Ok(stream) => drop(streams.send(stream).await),
                    Err(error) => tracing::debug!(%error, ?port, "no stream for the output"),
                }
            });
        }
    }

    /// Returns, once, when all is at its end; from then on tells the guest, which may not have heard it, that it is
    /// so. Cancel-safe.
    pub(super) async fn filled(&mut self) {
        tokio::select! {
            biased;
            () = &mut self.future => {}
            _ = self.left.wait_for(|left| *left == 0), if !self.is_filled => self.is_filled = true,
        }
    }

    /// Waits until there is no more of a guest that is gone.
    pub(super) async fn finish(mut self) {
        self.streams.clear();
        if !self.is_filled {
            self.filled().await;
        }
    }
}

/// Goes on for ever: see [`Filling::filled`].
async fn fill(output: &One, mut taker: Taker<Stream>, ended: watch::Sender<usize>) {
    tokio::select! {
        () = output.fill(&mut taker) => {}
        // The guest has been told, and says no more.
        _ = output.done() => {}
    }
    ended.send_modify(|left| *left -= 1);
    taker.linger().await;
}
