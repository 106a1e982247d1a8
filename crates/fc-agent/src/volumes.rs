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

use std::{
    collections::BTreeMap,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt as _, net::UnixStream},
    },
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use fcvm_link::Stream;
use fcvm_proto::{
    Lane, Port, Volume, VolumeKind,
    transport::VSOCK_STREAMS_PORT,
    volume::{MAX_LANES, MAX_VOLUMES, VOLUMES_DIR},
};
use fuse_pipe::{
    client::{Access, Audience, Client, Mounted, Options, Permissions},
    stream,
};
use tokio::{
    io::{AsyncReadExt as _, copy_bidirectional_with_sizes},
    runtime::Handle,
    sync::mpsc,
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

use crate::init::DeferredModules;

/// Lanes that wait to be sorted.
const QUEUE: usize = 16;
/// Bytes that are moved at a time between the link and a lane's socket: a request of the usual size.
const CHUNK: usize = 256 << 10;

/// Where the kernel shows connections of FUSE.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";
/// How long the host may take to have all that was written.
const PATIENCE: Duration = Duration::from_secs(30);
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
}

/// Lanes, and volumes of a kernel that needs these modules for them.
pub(crate) fn new(link: Handle, modules: DeferredModules) -> (Lanes, Volumes) {
    let (sender, arrivals) = mpsc::channel(QUEUE);
    (Lanes { link, arrivals: sender }, Volumes { arrivals, modules })
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

impl Volumes {
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
        let mut waiting: Vec<BTreeMap<u16, stream::Stream>> = Vec::new();
        waiting.resize_with(volumes.len(), BTreeMap::new);
        let mut mounting = Vec::new();
        while mounting.len() < volumes.len() {
            let Some((lane, stream)) = self.arrivals.recv().await else { bail!("the host has gone") };
            let number = usize::from(lane.volume);
            let (Some(volume), Some(lanes)) = (volumes.get(number), waiting.get_mut(number)) else {
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
            if lanes.len() == usize::from(volume.lanes) {
                let streams = std::mem::take(lanes).into_values().collect();
                let (path, volume) = (Volume::path(number), volume.clone());
                mounting.push(spawn_blocking(move || mount(&path, &volume, streams)));
            }
        }
        let mut mounts = Mounts::default();
        for one in mounting {
            mounts._mounted.push(one.await??);
        }
        mounts.written =
            (0..).zip(volumes).filter(|(_, volume)| !volume.read_only).map(|(number, _)| number).collect();
        Ok(mounts)
    }
}

/// Volumes that are mounted. Dropped, they are not any more.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    _mounted: Vec<Mounted>,
    /// Numbers of those that can be written to.
    written: Vec<usize>,
}

impl Mounts {
    /// Returns once the host has all that was written: soon the machine may be gone. Nobody uses the
    /// volumes any more.
    pub(crate) async fn settle(&self) {
        for number in &self.written {
            let path = Volume::path(*number);
            let settled = timeout(PATIENCE, settle(path.clone())).await;
            if let Err(error) = settled.map_err(io::Error::from).flatten() {
                tracing::warn!(%error, path, "a volume may lack what was written last");
            }
        }
    }
}

async fn settle(path: String) -> io::Result<()> {
    let connection = spawn_blocking(move || {
        let root = fs::File::open(&path)?;
        rustix::fs::syncfs(&root)?;
        io::Result::Ok(rustix::fs::minor(root.metadata()?.dev()))
    });
    let waiting = format!("{CONNECTIONS}/{}/waiting", connection.await.map_err(io::Error::other)??);
    // Older kernels do not wait for the answers to what they write back, and tell nobody of them but here.
    while fs::read_to_string(&waiting).is_ok_and(|requests| requests.trim() != "0") {
        sleep(ANSWERED).await;
    }
    Ok(())
}

fn mount(path: &str, volume: &Volume, streams: Vec<stream::Stream>) -> anyhow::Result<Mounted> {
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
