//! The host's end: requests come from lanes, replies go back on the lane that they came from.
//!
//! ```text
//!  Server::serve(lane): Hello -> Welcome -> requests and replies -> end of the stream, or a violation
//! ```
//! Another process may go on in a server's place: [`Server::save`].
//!
//! Of a lane's workers one leads: it reads a frame, answers it, and reads the next. Another leads as soon as
//! something comes meanwhile. So a slow request holds up no other, a quick one wakes nobody, and no queue grows:
//! a lane has as many requests in work as it has workers.

pub mod confine;
mod dispatch;
mod lane;
mod negotiate;
mod relief;
mod reply;
mod request;
mod statistics;
mod sys;

use std::{
    io,
    num::NonZero,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

pub(crate) use reply::Reply;
pub(crate) use request::Caller;
pub use statistics::Statistics;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    hello::{Hello, HelloError, Status, Welcome},
    passthrough::{Passthrough, State, Watching},
    spin::Spin,
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

/// Lets this process have as many files open as it may; how many that is, `None` where there is no limit.
///
/// A server has one for each file that its client knows. Beyond the limit requests fail with `EMFILE`. What
/// uses select(2) in the same process does not stand numbers beyond 1023.
///
/// # Errors
/// Where the kernel refuses.
pub fn raise_file_limit() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum)
}

/// Serves one file system to one client, which may have several lanes.
#[derive(Debug, Clone)]
pub struct Server {
    files: Arc<Passthrough>,
    workers: NonZero<usize>,
    spin: Spin,
    lanes: Arc<Mutex<Lanes>>,
    counters: Arc<statistics::Counters>,
}

/// How many lanes there are, and have been.
#[derive(Debug, Default)]
struct Lanes {
    open: usize,
    last: u64,
    /// The client comes back when the last has ended.
    kept: bool,
}

impl Server {
    /// Serves this file system.
    #[must_use]
    pub fn new(files: Passthrough) -> Self {
        Self {
            files: Arc::new(files),
            workers: WORKERS,
            spin: Spin::default(),
            lanes: Arc::default(),
            counters: Arc::default(),
        }
    }

    /// With so many workers for each lane.
    #[must_use]
    pub fn with_workers(self, workers: NonZero<usize>) -> Self {
        Self { workers, ..self }
    }

    /// Whether a lane's worker looks again for a while before it sleeps.
    #[must_use]
    pub fn with_spin(self, spin: Spin) -> Self {
        Self { spin, ..self }
    }

    /// What it has done since it was made, and has at the moment.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let [nodes, handles, lock_owners, lock_waits] = self.files.counts();
        Statistics { nodes, handles, lock_owners, lock_waits, ..self.counters.statistics() }
    }

    /// What it knows of its client, for another process that serves the same to a copy of that:
    /// [`Passthrough::resume`]. The client is [suspended](crate::client::Mounted::suspend), and may come back here
    /// as well: the next time that all lanes end, nothing is forgotten.
    #[must_use]
    pub fn save(&self) -> State {
        self.lanes().kept = true;
        self.files.state()
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
        let number = {
            let mut lanes = self.lanes();
            lanes.open += 1;
            lanes.last += 1;
            lanes.last
        };
        let lane = lane::Lane::new(stream, number, self.spin, Arc::clone(&self.counters));
        let result = lane.and_then(|lane| self.answer_lane(&lane, number));
        let mut lanes = self.lanes();
        lanes.open -= 1;
        if lanes.open == 0 && !std::mem::take(&mut lanes.kept) {
            // The client is gone, and so are its handles and locks.
            self.files.reset();
        }
        result
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer_lane(&self, lane: &lane::Lane, number: u64) -> io::Result<()> {
        let watching = Watching::begin(&self.files);
        thread::scope(|scope| {
            if let Some(watching) = &watching {
                let tell = || {
                    if let Err(error) = watching.run(|frames| lane.send(frames)) {
                        tracing::debug!(%error, "the client can no longer be told what changes");
                        lane.close();
                    }
                };
                thread::Builder::new().name("fuse-watch".into()).spawn_scoped(scope, tell)?;
            }
            let _stop = watching.as_ref().map(|watching| Stop(watching, lane));
            let mut workers = Vec::new();
            let mut result = Ok(());
            for _ in 0..self.workers.get() {
                let worker = thread::Builder::new().name("fuse-worker".into());
                match worker.spawn_scoped(scope, || lane.work(&self.files, scope)) {
                    Ok(worker) => workers.push(worker),
                    Err(error) => {
                        lane.close();
                        result = Err(error);
                        break;
                    }
                }
            }
            for worker in workers {
                let ended = worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
                result = result.and(ended);
            }
            // Nobody takes a request any more, so that no wait begins after this.
            self.files.end_lane(number);
            result
        })
    }
}

/// However the workers end, the thread that watches does, too.
struct Stop<'a>(&'a Watching<'a>, &'a lane::Lane);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        // It may be waiting for the client to take what it is told.
        self.1.close();
        self.0.stop();
    }
}

#[cfg(test)]
mod tests;
