//! Ports of the host's loopback that lead to the guest by the link, where passt connects a VM: it takes what
//! comes from the loopback for itself, unless all of the host's loopback is open to the guest in turn.

use std::{io, net, sync::Arc, time::Duration};

use fcvm_link::{
    Opener,
    channel::{Receiver, Sender},
};
use fcvm_proto::{Port, TcpReply, TcpRequest};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};

/// At once: who comes then waits in the kernel's queue.
const MOST_CONNECTIONS: usize = 512;
/// Where a connection cannot be accepted for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener on the host, and the guest's port.
#[derive(Debug)]
pub struct Linked {
    /// Of the host's loopback.
    pub listener: net::TcpListener,
    /// In the guest.
    pub port: u16,
}

impl Linked {
    /// The same for another boot of the guest.
    ///
    /// # Errors
    /// Where there are no more descriptors.
    pub fn again(&self) -> io::Result<Self> {
        Ok(Self { listener: self.listener.try_clone()?, port: self.port })
    }
}

/// Carries connections, until this is dropped, and all of them with it.
pub async fn serve(ports: Vec<Linked>, opener: Opener) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut listening = JoinSet::new();
    for port in ports {
        listening.spawn(accept(port, opener.clone(), room.clone()));
    }
    while let Some(ended) = listening.join_next().await {
        if let Ok(Err(error)) = ended {
            tracing::warn!(%error, "a published port answers no more");
        }
    }
}

async fn accept(Linked { listener, port }: Linked, opener: Opener, room: Arc<Semaphore>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut carried = JoinSet::new();
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return Ok(()) };
        tokio::select! {
            accepted = listener.accept() => {
                let stream = match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::debug!(%error, port, "a connection could not be accepted");
                        sleep(PAUSE).await;
                        continue;
                    }
                };
                let opener = opener.clone();
                carried.spawn(async move {
                    carry(stream, port, &opener).await;
                    drop(place);
                });
            }
            Some(_) = carried.join_next() => {}
        }
    }
}

/// One connection. What the guest does not take is reset.
async fn carry(mut stream: TcpStream, port: u16, opener: &Opener) {
    let connected = async {
        let mut guest = opener.open(Port::Tcp).await.ok()?;
        Sender::new(&mut guest).send(&TcpRequest { port }).await.ok()?;
        match Receiver::<TcpReply, _>::new(&mut guest).receive().await.ok()?? {
            TcpReply::Connected => Some(guest),
            TcpReply::Refused(_) => None,
        }
    };
    let carried = match connected.await {
        Some(mut guest) => copy_bidirectional(&mut stream, &mut guest).await.map(drop),
        None => stream.set_zero_linger(),
    };
    if let Err(error) = carried {
        tracing::debug!(%error, port, "a connection broke");
    }
}
