//! A question to the upstreams, one after the other.

use std::{
    collections::VecDeque,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, Interest},
    net::{TcpStream, UdpSocket},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Upstream,
    message::{Query, Verdict, verdict},
};
use crate::random;

/// How long a server may be silent until the next is asked as well.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often that may be: libc asks us again after five seconds.
const MOST_WAITS: usize = 3;
/// The longest answer: what its length fits into by TCP, and no datagram is longer.
const LONGEST: usize = 65_535;

/// How a question comes, and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// Those who are asked.
#[derive(Debug)]
pub(super) struct Upstreams {
    source: Upstream,
    patience: Duration,
    /// Who answered last when others did not.
    proven: Mutex<Option<SocketAddr>>,
}

impl Upstreams {
    pub(super) fn new(source: Upstream) -> Self {
        Self { source, patience: PATIENCE, proven: Mutex::default() }
    }

    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The first good answer, or else one that says that a server cannot tell. `None` where all are silent.
    ///
    /// A server that is slow is not given up: while the next one is asked, its answer still counts.
    pub(super) async fn ask(&self, query: &Query, by: Transport) -> Option<Vec<u8>> {
        let mut waiting = self.in_order();
        let query = Arc::new(query.clone());
        let mut attempts = JoinSet::new();
        let mut unable = None;
        let mut waits = 0;
        loop {
            if let Some(server) = waiting.pop_front() {
                let query = query.clone();
                attempts.spawn(async move { (server, attempt(server, &query, by).await) });
                // Once more after the others: datagrams are lost at times.
                waiting.push_back(server);
            } else if attempts.is_empty() {
                return unable;
            }
            let patience = Instant::now() + self.patience;
            tokio::select! {
                Some(outcome) = attempts.join_next() => match outcome {
                    Ok((server, Ok(answer))) => match verdict(&answer) {
                        Verdict::Final => {
                            // Who does not know this name may know all others.
                            if unable.is_none() {
                                *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
                            }
                            return Some(answer);
                        }
                        Verdict::AskAnother => {
                            waiting.retain(|other| *other != server);
                            unable = Some(answer);
                        }
                    },
                    Ok((server, Err(error))) => {
                        tracing::debug!(%server, %error, "a resolver cannot be asked");
                        waiting.retain(|other| *other != server);
                    }
                    Err(error) => tracing::debug!(%error, "a question ended"),
                },
                () = sleep_until(patience) => {
                    waits += 1;
                    if waits == MOST_WAITS {
                        return unable;
                    }
                }
            }
        }
    }

    fn in_order(&self) -> VecDeque<SocketAddr> {
        let mut servers: VecDeque<_> = self.source.servers().into();
        let proven = *self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = servers.iter().position(|server| Some(*server) == proven) {
            servers.rotate_left(place);
        }
        servers
    }
}

async fn attempt(server: SocketAddr, query: &Query, by: Transport) -> io::Result<Vec<u8>> {
    let mut id = [0; 2];
    random::fill(&mut id)?;
    let mut answer = match by {
        Transport::Udp => ask_by_udp(server, query, id).await?,
        Transport::Tcp => ask_by_tcp(server, query, id).await?,
    };
    answer[..2].copy_from_slice(&query.id());
    Ok(answer)
}

/// From a port that the kernel chooses at random; what others than the server send does not arrive.
async fn ask_by_udp(server: SocketAddr, query: &Query, id: [u8; 2]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&query.with_id(id)).await?;
    loop {
        // That a port is closed is an error, and no news to read.
        if socket.ready(Interest::READABLE | Interest::ERROR).await?.is_error() {
            return Err(socket.take_error()?.unwrap_or_else(|| io::ErrorKind::ConnectionRefused.into()));
        }
        // Taken only now, as many may be waiting.
        let mut answer = vec![0; LONGEST];
        let length = match socket.try_recv(&mut answer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        answer.truncate(length);
        if query.is_answered_by(&answer, id) {
            answer.shrink_to_fit();
            return Ok(answer);
        }
        tracing::debug!(%server, "an answer to another question");
    }
}

async fn ask_by_tcp(server: SocketAddr, query: &Query, id: [u8; 2]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_all(&framed(&query.with_id(id))).await?;
    let mut answer = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut answer).await?;
    if query.is_answered_by(&answer, id) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// A message as on a stream, behind its length: RFC 1035, section 4.2.2.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &message[..length.into()]].concat()
}
