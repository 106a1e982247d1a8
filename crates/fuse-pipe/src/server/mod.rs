//! The host's end: requests come from lanes, replies go back on the lane that they came from.
//!
//! ```text
//!  Server::serve(lane): Hello -> Welcome -> requests and replies -> end of the stream, or a violation
//! ```
//! A lane's workers take turns: one reads a frame, hands the stream to the next, answers. So a slow request
//! holds up no other, and no queue grows: a lane has as many requests in work as it has workers.

mod dispatch;
mod lane;
mod negotiate;
mod reply;
mod request;
mod sys;

use std::{io, num::NonZero, sync::Arc, thread};

pub(crate) use reply::Reply;
pub(crate) use request::Caller;

use crate::{
    hello::{Hello, HelloError, Status, Welcome},
    passthrough::Passthrough,
    stream::Stream,
};

/// Workers of a lane, where nothing else is asked for.
const WORKERS: NonZero<usize> = NonZero::new(8).expect("8 is not 0");

/// A lane has ended otherwise than by its client's end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Nobody who speaks this protocol.
    #[error("failed to greet the client")]
    Hello(#[from] HelloError),
    /// The stream, or what came by it.
    #[error("failed to serve the client")]
    Lane(#[from] io::Error),
}

/// Serves one file system to one client, which may have several lanes.
#[derive(Debug, Clone)]
pub struct Server {
    files: Arc<Passthrough>,
    workers: NonZero<usize>,
}

impl Server {
    /// Serves this file system.
    #[must_use]
    pub fn new(files: Passthrough) -> Self {
        Self { files: Arc::new(files), workers: WORKERS }
    }

    /// With so many workers for each lane.
    #[must_use]
    pub fn with_workers(self, workers: NonZero<usize>) -> Self {
        Self { workers, ..self }
    }

    /// Serves a lane from its greeting to its end.
    ///
    /// # Errors
    /// Where the stream fails, or the client does not keep to the protocol.
    pub fn serve(&self, stream: Stream) -> Result<(), ServeError> {
        match Hello::receive(&mut &stream) {
            Ok(hello) => tracing::debug!(lane = hello.lane, lanes = hello.lanes, "a client"),
            Err(error) => {
                if matches!(error, HelloError::Protocol { .. }) {
                    Welcome::refused(Status::UnknownProtocol).send(&mut &stream)?;
                }
                return Err(error.into());
            }
        }
        let largest = u32::try_from(lane::MAX_FRAME).unwrap_or(u32::MAX);
        Welcome::accepted(largest).send(&mut &stream)?;
        Ok(self.answer(stream)?)
    }

    fn answer(&self, stream: Stream) -> io::Result<()> {
        let lane = lane::Lane::new(stream);
        thread::scope(|scope| {
            let mut workers = Vec::new();
            for _ in 0..self.workers.get() {
                let worker = thread::Builder::new().name("fuse-worker".into());
                workers.push(worker.spawn_scoped(scope, || lane.work(&self.files))?);
            }
            let mut result = Ok(());
            for worker in workers {
                let ended = worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
                result = result.and(ended);
            }
            result
        })
    }
}

#[cfg(test)]
mod tests;
