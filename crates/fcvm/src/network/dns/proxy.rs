//! The answering end: sockets of the VM's namespace.

use std::{convert::Infallible, io, net, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Policy, Upstream,
    exchange::{Transport, Upstreams, framed},
    message::{Failure, Query, Rejected},
    policy::Gate,
};

/// The longest query: a question and a few options are a tenth of it.
const LONGEST_QUERY: usize = 4096;
/// Where a socket fails for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Bound sockets, of any number of addresses.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For datagrams.
    pub udp: Vec<net::UdpSocket>,
    /// For connections.
    pub tcp: Vec<net::TcpListener>,
}

/// What a guest may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Questions that wait for an answer: others wait in the sockets, or are lost.
    pub(super) queries: usize,
    /// Connections: others wait.
    pub(super) connections: usize,
    /// How long a connection may be without a query, and its reader without reading.
    pub(super) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queries: 256, connections: 64, idle: Duration::from_secs(10) }
    }
}

/// The resolver of one VM.
#[derive(Debug)]
pub struct Proxy {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstreams: Upstreams,
    gate: Gate,
    queries: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    idle: Duration,
}

impl Proxy {
    /// Puts the sockets under the care of the runtime in which this is called.
    ///
    /// # Errors
    /// Where one cannot be watched.
    pub fn new(listeners: Listeners, upstream: Upstream, policy: Policy) -> io::Result<Self> {
        Self::with(listeners, Upstreams::new(upstream), policy, Limits::default())
    }

    pub(super) fn with(
        listeners: Listeners,
        upstreams: Upstreams,
        policy: Policy,
        limits: Limits,
    ) -> io::Result<Self> {
        let udp = listeners.udp.into_iter().map(|socket| {
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        });
        let tcp = listeners.tcp.into_iter().map(|listener| {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)
        });
        let shared = Shared {
            upstreams,
            gate: Gate::new(policy),
            queries: Arc::new(Semaphore::new(limits.queries)),
            connections: Arc::new(Semaphore::new(limits.connections)),
            idle: limits.idle,
        };
        Ok(Self {
            udp: udp.collect::<io::Result<_>>()?,
            tcp: tcp.collect::<io::Result<_>>()?,
            shared: shared.into(),
        })
    }

    /// Answers, until this is dropped, and all that it has begun with it.
    pub async fn serve(self) {
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(datagrams(socket.into(), self.shared.clone()));
        }
        for listener in self.tcp {
            tasks.spawn(connections(listener, self.shared.clone()));
        }
        // None of them ends but by a bug.
        while let Some(ended) = tasks.join_next().await {
            let Err(error) = ended;
            tracing::error!(%error, "the resolver's task ended");
        }
        std::future::pending().await
    }
}

async fn datagrams(socket: Arc<UdpSocket>, shared: Arc<Shared>) -> Infallible {
    let mut tasks = JoinSet::new();
    // One byte more tells that it is too long.
    let mut buffer = vec![0; LONGEST_QUERY + 1];
    loop {
        let permit = permit(&shared.queries).await;
        while tasks.try_join_next().is_some() {}
        let (length, guest) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "no query could be received");
                sleep(PAUSE).await;
                continue;
            }
        };
        if length > LONGEST_QUERY {
            continue;
        }
        let query = buffer[..length].to_vec();
        let (socket, shared) = (socket.clone(), shared.clone());
        tasks.spawn(async move {
            if let Some(answer) = shared.answer(&query, Transport::Udp).await
                && let Err(error) = socket.try_send_to(&answer, guest)
            {
                // As datagrams are, it is lost: nothing waits for a guest.
                tracing::debug!(%error, "an answer is lost");
            }
            drop(permit);
        });
    }
}

async fn connections(listener: TcpListener, shared: Arc<Shared>) -> Infallible {
    let mut tasks = JoinSet::new();
    loop {
        let permit = permit(&shared.connections).await;
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tasks.spawn(async move {
                    if let Err(error) = shared.converse(stream).await {
                        tracing::debug!(%error, "a guest's connection to the resolver ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no connection to the resolver could be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn permit(of: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    of.clone().acquire_owned().await.expect("nobody closes it")
}

impl Shared {
    /// Queries of one connection, one after the other.
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let query = match timeout(self.idle, receive(&mut stream)).await {
                Ok(Ok(query)) => query,
                // It is at its end, or nobody uses it.
                Err(_) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(Err(error)) => return Err(error),
            };
            let permit = permit(&self.queries).await;
            let Some(answer) = self.answer(&query, Transport::Tcp).await else { return Ok(()) };
            drop(permit);
            timeout(self.idle, stream.write_all(&framed(&answer))).await??;
        }
    }

    /// What the guest gets for a message, if anything.
    async fn answer(&self, message: &[u8], by: Transport) -> Option<Vec<u8>> {
        let query = match Query::parse(message) {
            Ok(query) => query,
            Err(Rejected::Answered(answer)) => return Some(answer),
            Err(Rejected::Ignored) => return None,
        };
        if !self.gate.admits(&query) {
            return Some(query.failure(Failure::Refused));
        }
        let Some(answer) = self.upstreams.ask(&query, by).await else {
            return Some(query.failure(Failure::Server));
        };
        match self.gate.learn(&query, &answer).await {
            Ok(()) => Some(answer),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "an answer is withheld");
                Some(query.failure(Failure::Server))
            }
        }
    }
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > LONGEST_QUERY {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut query = vec![0; length];
    stream.read_exact(&mut query).await?;
    Ok(query)
}
