//! `--forward-localhost`: services on the host's loopback, at the guest's gateway.
//!
//! ```text
//!  guest ---- 10.0.2.2:PORT, a listener in the VM's namespace ==== the owner ==== 127.0.0.1:PORT, or [::1]:PORT
//! ```
//! Both ends see what they would see of each other: the end of one direction is passed on while the other
//! goes on, and a reset as a reset. Where nobody listens on the host, the guest's connection is reset.
//!
//! What is on its way is two buffers for each connection, and what the kernel's sockets hold: who does not
//! read holds up who writes, and nobody else. Connections have a bound.

use std::{
    convert::Infallible,
    io,
    net::{self, IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use rustix::net::{Shutdown, shutdown};
use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Connections of all ports together: what comes beyond is reset.
const MOST_CONNECTIONS: usize = 512;
/// Bytes on their way, in each direction.
const BUFFER: usize = 32 << 10;
/// The host's services, in the order in which they are tried.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
/// How long one that is overloaded may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long what was sent before a reset may take to where it goes.
const LAST_BYTES: Duration = Duration::from_secs(1);
/// Where no connection can be accepted: most likely all descriptors are in use.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener for the guest, and the port of the host's loopback that is meant.
#[derive(Debug)]
pub struct Forward {
    /// Bound, in the VM's namespace.
    pub listener: net::TcpListener,
    /// On the host.
    pub port: u16,
}

/// All forwarded ports of a VM.
#[derive(Debug)]
pub struct Relay {
    ports: Vec<(TcpListener, u16)>,
    connections: Arc<Semaphore>,
}

impl Relay {
    /// Puts the listeners under the care of the runtime in which this is called.
    ///
    /// # Errors
    /// Where one cannot be watched.
    pub fn new(forwards: impl IntoIterator<Item = Forward>) -> io::Result<Self> {
        let ports = forwards.into_iter().map(|Forward { listener, port }| {
            listener.set_nonblocking(true)?;
            Ok((TcpListener::from_std(listener)?, port))
        });
        let connections = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        Ok(Self { ports: ports.collect::<io::Result<_>>()?, connections })
    }

    /// Carries connections, until this is dropped, and all of them with it.
    pub async fn serve(self) {
        let mut tasks = JoinSet::new();
        for (listener, port) in self.ports {
            tasks.spawn(accept(listener, port, self.connections.clone()));
        }
        // None of them ends but by a bug.
        while let Some(ended) = tasks.join_next().await {
            let Err(error) = ended;
            tracing::error!(%error, "a forwarded port's task ended");
        }
        std::future::pending().await
    }
}

async fn accept(listener: TcpListener, port: u16, connections: Arc<Semaphore>) -> Infallible {
    let mut tasks = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while tasks.try_join_next().is_some() {}
        let guest = match accepted {
            Ok((guest, _)) => guest,
            Err(error) => {
                tracing::debug!(port, %error, "no connection to a forwarded port could be accepted");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = connections.clone().try_acquire_owned() else {
            tracing::debug!(port, "too many connections to forwarded ports");
            reset(&guest);
            continue;
        };
        tasks.spawn(async move {
            relay(guest, port).await;
            drop(permit);
        });
    }
}

/// Carries one connection to its end.
async fn relay(guest: TcpStream, port: u16) {
    let host = match connect(port).await {
        Ok(host) => host,
        Err(error) => {
            tracing::debug!(port, %error, "the host's port cannot be reached");
            return reset(&guest);
        }
    };
    for stream in [&guest, &host] {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(port, %error, "small packets may be late");
        }
    }
    let both = async { tokio::try_join!(carry(&guest, &host), carry(&host, &guest)).map(drop) };
    let outcome = tokio::select! {
        outcome = both => outcome,
        outcome = broken(&guest) => outcome,
        outcome = broken(&host) => outcome,
    };
    if let Err(error) = outcome {
        tracing::trace!(port, %error, "a forwarded connection broke");
        reset(&guest);
        reset(&host);
    }
}

async fn connect(port: u16) -> io::Result<TcpStream> {
    let mut failure = io::ErrorKind::ConnectionRefused.into();
    for address in LOOPBACK {
        match timeout(CONNECTING, TcpStream::connect((address, port))).await? {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Moves bytes until there are no more, and says so on the other side.
async fn carry(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = read(from, &mut buffer).await?;
        if length == 0 {
            // Whoever is gone by now has told it by a reset, or has all there was.
            return match shutdown(to, Shutdown::Write) {
                Err(rustix::io::Errno::NOTCONN) => Ok(()),
                result => Ok(result?),
            };
        }
        write(to, &buffer[..length]).await?;
    }
}

async fn read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        from.readable().await?;
        match from.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Ends when the other end has reset the connection: also where nothing is read from it any more, or the
/// bytes before the reset have nowhere to go.
async fn broken(stream: &TcpStream) -> io::Result<()> {
    stream.ready(Interest::ERROR).await?;
    // What arrived before it is for the other side, as without us.
    sleep(LAST_BYTES).await;
    Err(io::ErrorKind::ConnectionReset.into())
}

/// Makes the end of this connection a reset.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "a connection ends without a reset");
    }
}

#[cfg(test)]
mod tests;
