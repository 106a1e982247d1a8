//! Volumes: directories and files of the host, mounted before the container starts.
//!
//! ```text
//!  lanes come: streams of the link, each by a socket of its own --.
//!              connections beside the link, as they are ----------+--> sorted by volume
//!                                                                          | all of them
//!                                                        FUSE mount in VOLUMES_DIR
//! ```
//! Whoever uses a volume waits for the host, so that what moves the bytes runs on the link's thread, where
//! nothing ever uses one.
//!
//! In a snapshot no volume has anything under way:
//! ```text
//!  serving --Freeze--> suspended --Thaw: as before-----------------------> serving
//!                           '------Restore--> awaited --all its lanes-------^
//! ```

use std::{
    collections::BTreeMap,
    fs, io, mem,
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use fcvm_link::Stream;
use fcvm_proto::{
    Lane, Port, Volume, VolumeKind,
    transport::VSOCK_STREAMS_PORT,
    volume::{MAX_LANES, MAX_VOLUMES, VOLUMES_DIR},
};
use fuse_pipe::{
    client::{self, Access, Audience, Client, Options, Permissions},
    stream,
};
use tokio::{
    io::{AsyncReadExt as _, copy_bidirectional_with_sizes},
    runtime::Handle,
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::init::DeferredModules;

/// Lanes that wait to be sorted.
const QUEUE: usize = 16;
/// Bytes that are moved at a time between the link and a lane's socket: a request of the usual size.
const CHUNK: usize = 256 << 10;

/// Where the kernel shows connections of FUSE.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// How long the host may take to answer: to have all that was written, for one.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two looks at what it has not answered yet.
const ANSWERED: Duration = Duration::from_millis(1);

/// A lane that has come.
type Arrival = (Lane, stream::Stream);

/// Where lanes arrive.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    link: Handle,
    arrivals: mpsc::Sender<Arrival>,
}

/// Where those that have arrived wait for their volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    arrivals: mpsc::Receiver<Arrival>,
    modules: DeferredModules,
    mounted: Mounted,
}

/// Lanes, and volumes of a kernel that needs these modules for them.
pub(crate) fn new(link: Handle, modules: DeferredModules) -> (Lanes, Volumes) {
    let (sender, arrivals) = mpsc::channel(QUEUE);
    (Lanes { link, arrivals: sender }, Volumes { arrivals, modules, mounted: Mounted::default() })
}

impl Lanes {
    /// A stream of the link that belongs to a volume.
    pub(crate) fn attach(&self, stream: Stream) {
        let lanes = self.clone();
        self.link.spawn(async move {
            if let Err(error) = lanes.pump(stream).await {
                tracing::debug!(%error, "a lane broke");
            }
        });
    }

    async fn pump(self, mut stream: Stream) -> io::Result<()> {
        let lane = header(&mut stream).await?;
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        let mut near = tokio::net::UnixStream::from_std(near)?;
        self.arrived(lane, far.into()).await?;
        copy_bidirectional_with_sizes(&mut stream, &mut near, CHUNK, CHUNK).await?;
        Ok(())
    }

    /// Takes connections of the host beside the link, from now on.
    ///
    /// # Errors
    /// Where the machine has no vsock device.
    pub(crate) fn listen(&self) -> anyhow::Result<()> {
        let _link = self.link.enter();
        let listener = VsockListener::bind(VsockAddr::new(VMADDR_CID_ANY, VSOCK_STREAMS_PORT))
            .context("failed to listen for streams on vsock")?;
        let lanes = self.clone();
        self.link.spawn(async move {
            loop {
                match listener.accept().await {
                    // The machine's own programs can reach it too, where the kernel has a loopback.
                    Ok((_, peer)) if peer.cid() != VMADDR_CID_HOST => {
                        tracing::warn!(cid = peer.cid(), "a connection that is not the host's was closed");
                    }
                    Ok((stream, _)) => drop(tokio::spawn(lanes.clone().take(stream))),
                    Err(error) => return tracing::warn!(%error, "no more streams are taken"),
                }
            }
        });
        Ok(())
    }

    async fn take(self, mut stream: VsockStream) {
        let taken = async {
            let port = stream.read_u32_le().await?;
            if Port::from_number(port) != Some(Port::Volume) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a stream to port {port}")));
            }
            let lane = header(&mut stream).await?;
            self.arrived(lane, stream.into()).await
        };
        if let Err(error) = taken.await {
            tracing::warn!(%error, "a stream was closed");
        }
    }

    async fn arrived(&self, lane: Lane, descriptor: OwnedFd) -> io::Result<()> {
        let stream = stream::Stream::new(descriptor)?;
        let unwanted = |_| io::Error::new(io::ErrorKind::NotConnected, "nobody wants the lane");
        self.arrivals.send((lane, stream)).await.map_err(unwanted)
    }
}

async fn header(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<Lane> {
    let mut bytes = [0; Lane::LENGTH];
    stream.read_exact(&mut bytes).await?;
    Ok(Lane::decode(bytes))
}

/// Lanes that have come, of each volume.
#[derive(Debug)]
struct Sorted<'a> {
    volumes: &'a [Volume],
    waiting: Vec<BTreeMap<u16, stream::Stream>>,
}

impl<'a> Sorted<'a> {
    fn new(volumes: &'a [Volume]) -> Self {
        Self { volumes, waiting: volumes.iter().map(|_| BTreeMap::new()).collect() }
    }

    /// One more; all of its volume, in order, where it was the last of them.
    fn add(&mut self, (lane, stream): Arrival) -> anyhow::Result<Option<(usize, Vec<stream::Stream>)>> {
        let number = usize::from(lane.volume);
        let (Some(volume), Some(lanes)) = (self.volumes.get(number), self.waiting.get_mut(number)) else {
            bail!("the host opened a lane of volume {number}, of which there is none")
        };
        ensure!(
            lane.lane < volume.lanes && volume.lanes <= MAX_LANES,
            "the host opened lane {} of `{}`, which has {}",
            lane.lane,
            volume.name,
            volume.lanes
        );
        lanes.insert(lane.lane, stream);
        let all = lanes.len() == usize::from(volume.lanes);
        Ok(all.then(|| (number, mem::take(lanes).into_values().collect())))
    }
}

impl Volumes {
    /// What is mounted, for whoever makes snapshots.
    pub(crate) fn mounted(&self) -> Mounted {
        self.mounted.clone()
    }

    /// Mounts what the plan says, once the lanes are there. Dropping the mounts takes them away.
    ///
    /// # Errors
    /// Where one cannot be mounted: which, and why.
    pub(crate) async fn mount(mut self, volumes: &[Volume]) -> anyhow::Result<Mounts> {
        if volumes.is_empty() {
            return Ok(Mounts::default());
        }
        ensure!(volumes.len() <= MAX_VOLUMES, "{} volumes are too many", volumes.len());
        self.modules.load().context("the kernel has no FUSE")?;
        show_connections();
        fs::create_dir_all(VOLUMES_DIR).with_context(|| format!("failed to make `{VOLUMES_DIR}`"))?;
        let mut sorted = Sorted::new(volumes);
        let mut mounting = Vec::new();
        while mounting.len() < volumes.len() {
            let Some(arrival) = self.arrivals.recv().await else { bail!("the host has gone") };
            if let Some((number, streams)) = sorted.add(arrival)? {
                let (path, volume) = (Volume::path(number), volumes[number].clone());
                mounting.push(spawn_blocking(move || {
                    anyhow::Ok(One { number, mount: mount(&path, &volume, streams)?, volume })
                }));
            }
        }
        let mut all = Vec::new();
        for one in mounting {
            all.push(one.await??);
        }
        all.sort_by_key(|one| one.number);
        self.mounted.set(all);
        let (mounted, volumes) = (self.mounted.clone(), volumes.to_vec());
        let following = tokio::spawn(follow(self.arrivals, mounted, volumes));
        Ok(Mounts { mounted: self.mounted, following: Some(following) })
    }
}

/// Has volumes go on with the lanes that come after they were mounted.
async fn follow(mut arrivals: mpsc::Receiver<Arrival>, mounted: Mounted, volumes: Vec<Volume>) {
    let mut sorted = Sorted::new(&volumes);
    while let Some(arrival) = arrivals.recv().await {
        match sorted.add(arrival) {
            Ok(Some((number, streams))) => {
                let mounted = mounted.clone();
                spawn_blocking(move || mounted.reconnect(number, streams));
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = format!("{error:#}"), "a lane was closed"),
        }
    }
}

/// A volume that is mounted.
#[derive(Debug)]
struct One {
    number: usize,
    volume: Volume,
    mount: client::Mounted,
}

/// Where volumes are, as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Serving,
    Suspended,
    /// The lanes of so many are to come anew.
    Awaited(usize),
}

/// What is mounted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mounted(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    all: Vec<Arc<One>>,
}

impl State {
    fn resume(&mut self) {
        if self.phase == Phase::Suspended {
            self.phase = Phase::Serving;
            self.all.iter().for_each(|one| one.mount.resume());
        }
    }
}

impl Mounted {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, all: Vec<One>) {
        // Unmounted without the lock.
        let state = State { phase: Phase::Serving, all: all.into_iter().map(Arc::new).collect() };
        drop(mem::replace(&mut *self.lock(), state));
    }

    fn all(&self) -> Vec<Arc<One>> {
        self.lock().all.clone()
    }

    /// Has the host have all that was written, and ask nothing more of it until [`resume`](Self::resume), or until
    /// there are other lanes after [`await_lanes`](Self::await_lanes). For a thread that may wait.
    ///
    /// # Errors
    /// Where the host does not answer: then it is as before.
    pub(crate) fn suspend(&self) -> anyhow::Result<()> {
        let all = {
            let mut state = self.lock();
            if let Phase::Awaited(count @ 1..) = state.phase {
                bail!("{count} volumes of the host have not come back yet");
            }
            state.phase = Phase::Suspended;
            state.all.clone()
        };
        let suspended = all.iter().try_for_each(|one| {
            let name = &one.volume.name;
            if !one.volume.read_only {
                sync(&Volume::path(one.number))
                    .with_context(|| format!("failed to write volume `{name}`"))?;
            }
            one.mount.suspend(PATIENCE).with_context(|| format!("volume `{name}` does not come to rest"))
        });
        let mut state = self.lock();
        if state.phase == Phase::Serving {
            // The host has given up meanwhile, and nobody would have those go on that came to rest after that.
            all.iter().for_each(|one| one.mount.resume());
            bail!("the host did not wait for its volumes to come to rest");
        }
        if suspended.is_err() {
            state.resume();
        }
        suspended
    }

    /// They go on as before, unless their lanes are to come anew.
    pub(crate) fn resume(&self) {
        self.lock().resume();
    }

    /// The machine goes on in another session: those that were suspended get other lanes.
    pub(crate) fn await_lanes(&self) {
        let mut state = self.lock();
        if state.phase == Phase::Suspended {
            state.phase = Phase::Awaited(state.all.len());
        }
    }

    fn reconnect(&self, number: usize, streams: Vec<stream::Stream>) {
        let Some(one) = self.all().into_iter().find(|one| one.number == number) else { return };
        let name = &one.volume.name;
        if let Err(error) = one.mount.reconnect(streams, PATIENCE) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, volume = name, "a volume is lost to this machine");
            // Who uses it need not wait for ever.
            one.mount.end();
        }
        if let Phase::Awaited(count) = &mut self.lock().phase {
            *count = count.saturating_sub(1);
        }
    }
}

/// Volumes that are mounted. Dropped, they are not any more.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    mounted: Mounted,
    following: Option<JoinHandle<()>>,
}

impl Mounts {
    /// Returns once the host has all that was written: soon the machine may be gone. Nobody uses the
    /// volumes any more.
    pub(crate) async fn settle(&self) {
        for one in self.mounted.all().into_iter().filter(|one| !one.volume.read_only) {
            let path = Volume::path(one.number);
            let settled = spawn_blocking(move || settle(&path, PATIENCE)).await;
            if let Err(error) = settled.map_err(io::Error::other).flatten() {
                let volume = &one.volume.name;
                tracing::warn!(%error, volume, "a volume may lack what was written last");
            }
        }
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        if let Some(following) = &self.following {
            following.abort();
        }
        self.mounted.set(Vec::new());
    }
}

/// Has the kernel write to the volume what it has to; the volume.
fn sync(path: &str) -> io::Result<fs::File> {
    let root = fs::File::open(path)?;
    rustix::fs::syncfs(&root)?;
    Ok(root)
}

/// Returns once the host has all that was written to the volume, or after so long.
fn settle(path: &str, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    let root = sync(path)?;
    let waiting = format!("{CONNECTIONS}/{}/waiting", rustix::fs::minor(root.metadata()?.dev()));
    // Older kernels do not wait for the answers to what they write back, and tell nobody of them but here.
    while fs::read_to_string(&waiting).is_ok_and(|requests| requests.trim() != "0") {
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::sleep(ANSWERED);
    }
    Ok(())
}

fn mount(path: &str, volume: &Volume, streams: Vec<stream::Stream>) -> anyhow::Result<client::Mounted> {
    let make = || match volume.kind {
        VolumeKind::Directory => fs::create_dir(path),
        VolumeKind::File => fs::write(path, ""),
    };
    make().with_context(|| format!("failed to make `{path}`"))?;
    let options = Options {
        source: "fcvm".into(),
        subtype: "fcvm".into(),
        access: if volume.read_only { Access::ReadOnly } else { Access::ReadWrite },
        // The container's users are all there are.
        audience: Audience::Everyone,
        permissions: Permissions::Kernel,
        // A server that has died closes its lanes; one that lives answers, however slow this machine is.
        patience: PATIENCE,
        ..Options::default()
    };
    Client::mount(Path::new(path), streams, &options)
        .with_context(|| format!("failed to mount volume `{}`", volume.name))
}

/// By which a mount whose host has gone is ended at once. All works without.
fn show_connections() {
    let flags = rustix::mount::MountFlags::NOSUID;
    if let Err(error) = rustix::mount::mount("fusectl", CONNECTIONS, "fusectl", flags, c"") {
        tracing::debug!(%error, "connections of FUSE are not shown");
    }
}

#[cfg(test)]
mod tests;
