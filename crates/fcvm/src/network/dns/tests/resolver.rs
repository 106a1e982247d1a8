//! A resolver of the host's side, and a guest's: both with real sockets.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use super::super::{
    Listeners, Policy, Proxy, Upstream,
    exchange::{Transport, Upstreams, framed},
    proxy::Limits,
};

/// How long the proxy waits for a resolver here.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);

/// What a resolver sends for a query: any number of messages, by TCP the first.
pub(super) type React = dyn Fn(&Message, Transport) -> Vec<Vec<u8>> + Send + Sync;

/// A resolver that does what a test wants. Dropped, it is gone.
pub(super) struct Resolver {
    pub(super) address: SocketAddr,
    asked: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Resolver {
    pub(super) async fn start(
        react: impl Fn(&Message, Transport) -> Vec<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let react: Arc<React> = Arc::new(react);
        let (udp, tcp) = pair().await;
        let address = udp.local_addr().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(datagrams(udp, react.clone(), asked.clone()));
        tasks.spawn(streams(tcp, react, asked.clone()));
        Self { address, asked, tasks }
    }

    /// One that answers everything with this address.
    pub(super) async fn with(address: [u8; 4]) -> Self {
        Self::start(move |query, _| vec![answer(query, [a(address)])]).await
    }

    /// One that never answers.
    pub(super) async fn silent() -> Self {
        Self::start(|_, _| Vec::new()).await
    }

    /// Ends it; where it was.
    pub(super) async fn gone(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }

    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Both on one port.
async fn pair() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
}

async fn datagrams(socket: UdpSocket, react: Arc<React>, asked: Arc<AtomicUsize>) {
    let mut buffer = [0; 4096];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
        asked.fetch_add(1, Ordering::SeqCst);
        let Ok(query) = Message::from_vec(&buffer[..length]) else { continue };
        for answer in react(&query, Transport::Udp) {
            // Who asked may be gone.
            socket.send_to(&answer, from).await.ok();
        }
    }
}

async fn streams(listener: TcpListener, react: Arc<React>, asked: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let Ok(query) = read(&mut stream).await else { continue };
        asked.fetch_add(1, Ordering::SeqCst);
        let answers = react(&Message::from_vec(&query).unwrap(), Transport::Tcp);
        if let Some(answer) = answers.first() {
            stream.write_all(&framed(answer)).await.ok();
        }
    }
}

pub(super) async fn read(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// An answer with these records for the name that was asked.
pub(super) fn answer(query: &Message, data: impl IntoIterator<Item = RData>) -> Vec<u8> {
    let mut answer = reply(query);
    let name = query.queries[0].name().clone();
    answer.add_answers(data.into_iter().map(|data| Record::from_rdata(name.clone(), 300, data)));
    answer.to_vec().unwrap()
}

pub(super) fn reply(query: &Message) -> Message {
    let mut answer = Message::response(query.metadata.id, OpCode::Query);
    answer.add_queries(query.queries.clone());
    answer
}

pub(super) fn failure(query: &Message, code: ResponseCode) -> Vec<u8> {
    let mut answer = reply(query);
    answer.metadata.response_code = code;
    answer.to_vec().unwrap()
}

pub(super) fn a(address: [u8; 4]) -> RData {
    RData::A(A(address.into()))
}

pub(super) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

/// A proxy at work, and a guest's socket connected to it.
pub(super) struct Guest {
    pub(super) socket: UdpSocket,
    pub(super) proxy: SocketAddr,
    _task: JoinSet<()>,
}

impl Guest {
    pub(super) async fn of(servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self::with(Upstream::Servers(servers.into_iter().collect()), Policy::Anything).await
    }

    pub(super) async fn with(upstream: Upstream, policy: Policy) -> Self {
        Self::limited(upstream, policy, Limits::default()).await
    }

    pub(super) async fn limited(upstream: Upstream, policy: Policy, limits: Limits) -> Self {
        let (udp, tcp) = pair().await;
        let proxy = udp.local_addr().unwrap();
        let listeners = Listeners { udp: vec![udp.into_std().unwrap()], tcp: vec![tcp.into_std().unwrap()] };
        let upstreams = Upstreams::new(upstream).with_patience(PATIENCE);
        let mut task = JoinSet::new();
        task.spawn(Proxy::with(listeners, upstreams, policy, limits).unwrap().serve());
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(proxy).await.unwrap();
        Self { socket, proxy, _task: task }
    }

    /// The next answer.
    pub(super) async fn receive(&self) -> Message {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).await.unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    /// The answer to a question for this name.
    pub(super) async fn ask(&self, id: u16, name: &str) -> Message {
        self.socket.send(&question(id, name)).await.unwrap();
        self.receive().await
    }

    pub(super) async fn ask_by_tcp(&self, query: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(&framed(query)).await.unwrap();
        read(&mut stream).await.unwrap()
    }
}

/// The addresses in an answer.
pub(super) fn addresses(message: &Message) -> Vec<String> {
    let address = |record: &Record| match &record.data {
        RData::A(address) => Some(address.to_string()),
        _ => None,
    };
    message.answers.iter().filter_map(address).collect()
}
