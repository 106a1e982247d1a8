//! The client: a mount whose requests go to a server at the other end of streams.
//!
//! ```text
//!   greet all lanes          HelloError: nothing was mounted
//!        |
//!      mount                 MountError
//!        |
//!    [starting]  lane 0      the server refuses or is silent: unmounted again
//!        | first reply
//!    [serving]   all lanes --------- unmount() or dropped ----------.
//!        |                                                          |
//!        | server gone, a stream broke, a frame too long            |
//!        | or refused by the kernel, unmounted by others            |
//!        v                                                          v
//!     [ended]: requests fail, threads and descriptors go --------> gone: nothing is mounted
//! ```
//! Once a mount has ended nobody waits for it: with its last descriptor the kernel ends all requests, and
//! where it shows the connection below `/sys/fs/fuse` that is asked of it at once. Programs get
//! `ECONNABORTED` or `ENOTCONN` until the mount is taken away.
//!
//! A mount that serves may go without a server for a while, and have another one then: [`Mounted::suspend`],
//! [`Mounted::reconnect`]. Who uses it meanwhile waits.
//!
//! The kernel would give the first request, INIT, to any lane, and takes its answer on any. Lane 0 begins
//! alone, so that the server need not care: before INIT is answered there is no other request.

mod device;
mod ended;
mod error;
mod frames;
mod fusermount;
mod gate;
mod lane;
mod mount;
mod notify;
mod options;
mod owed;
mod shared;

use std::{
    path::Path,
    sync::{Arc, Weak},
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use ended::Ended;
pub use error::{ClientError, MountError};
pub use options::{Access, Audience, Options, Permissions};
pub use shared::LaneStatistics;

use self::{
    device::Device,
    lane::Lane,
    mount::Attachment,
    shared::{Progress, Shared},
};
use crate::{
    hello::{Hello, HelloError, MAX_LANES, MountId, Welcome},
    stream::Stream,
};

/// The largest request or reply: 1 MiB of data, and room for what is around it.
pub const MAX_FRAME: usize = (1 << 20) + (64 << 10);
/// `FUSE_MIN_READ_BUFFER` of `linux/fuse.h`: a server has to take as much.
const MIN_FRAME: usize = 8192;

/// Makes mounts.
#[derive(Debug)]
pub enum Client {}

impl Client {
    /// Mounts at `path` what the server at the other end of the streams has. Each stream is a lane, in
    /// this order. Returns when the server serves.
    ///
    /// # Errors
    /// Where the server does not take the lanes, nothing can be mounted, or the server does not answer;
    /// then nothing stays mounted.
    pub fn mount(path: &Path, streams: Vec<Stream>, options: &Options) -> Result<Mounted, ClientError> {
        let greeted = greet(streams, options.patience)?;
        let (attachment, device) = Attachment::new(path, options)?;
        let shared = Shared::new(greeted.len(), attachment.abort_file()).map_err(|errno| {
            ClientError::Resources { what: "make an event descriptor", source: errno.into() }
        });
        // From here on dropping it undoes all; what has no threads yet does so too.
        let mut mounted = match shared {
            Ok(shared) => {
                Mounted { attachment, shared: Arc::new(shared), lanes: Vec::new(), threads: Vec::new() }
            }
            Err(error) => {
                drop(device);
                undo(attachment);
                return Err(error);
            }
        };
        mounted.start(device, greeted, options)?;
        Ok(mounted)
    }
}

fn undo(mut attachment: Attachment) {
    if let Err(error) = attachment.detach() {
        tracing::warn!(error = &error as &dyn std::error::Error, "failed to unmount");
    }
}

/// A lane that the server takes.
struct Greeted {
    number: u16,
    stream: Stream,
    largest: usize,
}

/// Says hello on all lanes, then hears the answers: a server may want all lanes before it answers.
fn greet(streams: Vec<Stream>, patience: Duration) -> Result<Vec<Greeted>, ClientError> {
    let lanes = u16::try_from(streams.len()).ok().filter(|lanes| (1..=MAX_LANES).contains(lanes));
    let lanes = lanes.ok_or(ClientError::Lanes { lanes: streams.len() })?;
    let deadline = Instant::now() + patience;
    let mount =
        MountId::random().map_err(|source| ClientError::Resources { what: "get random bytes", source })?;
    let failed = |lane| move |source| ClientError::Hello { lane, source };
    for (lane, stream) in (0..).zip(&streams) {
        Hello { lane, lanes, mount }.send(&mut stream.until(deadline)).map_err(failed(lane))?;
    }
    let hear = |(number, stream): (u16, Stream)| {
        let largest = Welcome::receive(&mut stream.until(deadline)).and_then(|welcome| welcome.taken());
        let largest = largest.map_err(failed(number))?;
        let frame = usize::try_from(largest).unwrap_or(MAX_FRAME).min(MAX_FRAME);
        if frame < MIN_FRAME {
            return Err(failed(number)(HelloError::Small { largest }));
        }
        Ok(Greeted { number, stream, largest: frame })
    };
    (0..).zip(streams).map(hear).collect()
}

/// A mount. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    attachment: Attachment,
    shared: Arc<Shared>,
    /// They live as long as their threads, and with them the kernel's hope for answers.
    lanes: Vec<Weak<Lane>>,
    threads: Vec<JoinHandle<()>>,
}

impl Mounted {
    fn start(&mut self, first: Device, greeted: Vec<Greeted>, options: &Options) -> Result<(), ClientError> {
        // The others' devices are opened before any thread closes the first, and are lost with an error.
        let another =
            |lane| first.another().map_err(|errno| ClientError::Lane { lane, source: errno.into() });
        let notifier = another(0)?;
        let further: Vec<Device> =
            (1..).zip(&greeted[1..]).map(|(lane, _)| another(lane)).collect::<Result<_, _>>()?;
        let no_thread = |source| ClientError::Resources { what: "start a thread", source };

        let mut devices = std::iter::once(first).chain(further);
        let mut lanes = greeted.into_iter().zip(&mut devices).map(|(greeted, device)| {
            let Greeted { number, stream, largest } = greeted;
            Arc::new(Lane::new(number, device, stream, largest, options.spin))
        });
        for lane in lanes.by_ref().take(1) {
            lane::start(&lane, &self.shared, &mut self.threads).map_err(no_thread)?;
            self.lanes.push(Arc::downgrade(&lane));
        }
        match self.shared.wait_until_started(Instant::now() + options.patience) {
            Progress::Serving => {}
            Progress::Starting => return Err(ClientError::Silent),
            Progress::Ended(reason) => return Err(ClientError::Start(reason)),
        }
        // The server's answer has lowered it.
        self.attachment.read_ahead();
        for lane in lanes {
            lane::start(&lane, &self.shared, &mut self.threads).map_err(no_thread)?;
            self.lanes.push(Arc::downgrade(&lane));
        }
        let tell = move |shared: &Shared| {
            notify::tell(&notifier, shared);
            None
        };
        self.threads.push(lane::spawn("fuse-notify".into(), &self.shared, tell).map_err(no_thread)?);
        Ok(())
    }

    /// Leaves requests with the kernel from now on, and returns when the server has answered all that it has,
    /// but for waits for locks. Streams may end then. It is as before after [`resume`](Self::resume), or with
    /// another server after [`reconnect`](Self::reconnect).
    ///
    /// # Errors
    /// Where the mount has ended, or the server does not answer for so long, or the mount is resumed meanwhile: then
    /// it is as before.
    pub fn suspend(&self, patience: Duration) -> Result<(), ClientError> {
        let (shared, deadline) = (&self.shared, Instant::now() + patience);
        if !shared.gate.shut() {
            return Ok(());
        }
        let lanes = self.lanes.len();
        let answered = || self.lanes.iter().filter_map(Weak::upgrade).all(|lane| lane.owed.is_nothing());
        let is_over = || shared.has_ended() || !shared.gate.is_shut();
        let in_time = shared.gate.wait_until(deadline, |parked| parked == lanes || is_over())
            && shared.gate.wait_until(deadline, |_| answered() || is_over());
        if shared.has_ended() {
            shared.gate.open();
            return Err(ClientError::Over(shared.wait_until_ended()));
        }
        if !shared.gate.is_shut() {
            return Err(ClientError::NotSuspended);
        }
        if !in_time {
            shared.gate.open();
            return Err(ClientError::Busy);
        }
        Ok(())
    }

    /// Goes on with the server that it had.
    pub fn resume(&self) {
        self.shared.gate.open();
    }

    /// Goes on with another server, or anew with the same, at the other end of other streams: one for each lane, in
    /// this order. That knows what the one before knew of the client: see
    /// [`Server::save`](crate::server::Server::save).
    ///
    /// # Errors
    /// Where it does not take the lanes: then the mount stays suspended. Where the mount has ended, or is not
    /// suspended.
    pub fn reconnect(&self, streams: Vec<Stream>, patience: Duration) -> Result<(), ClientError> {
        let deadline = Instant::now() + patience;
        if self.shared.has_ended() {
            return Err(ClientError::Over(self.shared.wait_until_ended()));
        }
        let lanes: Vec<Arc<Lane>> = self.lanes.iter().filter_map(Weak::upgrade).collect();
        if !self.shared.gate.is_shut() {
            return Err(ClientError::NotSuspended);
        }
        if lanes.len() != streams.len() {
            return Err(ClientError::Streams { streams: streams.len(), lanes: lanes.len() });
        }
        for (lane, greeted) in lanes.iter().zip(greet(streams, patience)?) {
            let failed = |source| ClientError::Hello { lane: greeted.number, source };
            if greeted.largest < lane.largest() {
                let largest = u32::try_from(greeted.largest).unwrap_or(u32::MAX);
                return Err(failed(HelloError::Small { largest }));
            }
            lane.follow(greeted.stream, deadline).map_err(|error| failed(error.into()))?;
        }
        self.shared.gate.open();
        Ok(())
    }

    /// Fails all requests from now on, while the mount stays where it is.
    pub fn end(&self) {
        self.shared.end(Ended::Unmounted);
    }

    /// What each lane has done so far.
    #[must_use]
    pub fn statistics(&self) -> Vec<LaneStatistics> {
        self.shared.counters.iter().map(shared::Counters::read).collect()
    }

    /// Waits until the mount has ended without us: until it was unmounted by others, or broke.
    #[must_use]
    pub fn wait(&self) -> Ended {
        self.shared.wait_until_ended()
    }

    /// To wait for the same elsewhere, while the mount stays here.
    #[must_use]
    pub fn ending(&self) -> Ending {
        Ending(Arc::clone(&self.shared))
    }

    /// Unmounts, and returns when all threads have ended. Who still uses the mount gets errors.
    ///
    /// # Errors
    /// Where it cannot be unmounted; it has ended all the same, and fails all requests.
    pub fn unmount(mut self) -> Result<(), ClientError> {
        Ok(self.close()?)
    }

    fn close(&mut self) -> Result<(), MountError> {
        let detached = self.attachment.detach();
        self.shared.end(Ended::Unmounted);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of a mount panicked");
            }
        }
        detached
    }
}

/// A mount's end, to wait for.
#[derive(Debug, Clone)]
pub struct Ending(Arc<Shared>);

impl Ending {
    /// Waits until the mount has ended, whoever ends it.
    #[must_use]
    pub fn wait(&self) -> Ended {
        self.0.wait_until_ended()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::warn!(error = &error as &dyn std::error::Error, "failed to unmount");
        }
    }
}
