//! The ways between servers and guest: lanes, each handed to its server.

use std::{io, os::fd::OwnedFd, os::unix::net::UnixStream};

use fcvm_link::Opener;
use fcvm_proto::{Lane, Port};
use tokio::{
    io::{AsyncWriteExt as _, copy_bidirectional_with_sizes},
    task::JoinSet,
};

use super::{Server, VolumeError};
use crate::hypervisor::Connecting;

/// Bytes that are moved at a time between the link and a server's socket.
const CHUNK: usize = 256 << 10;

/// What moves the bytes of the lanes that go over the link. Dropped, those end.
pub type Ways = JoinSet<()>;

/// Opens the lanes of all servers. `beside` leads to the guest beside the link, where the machine has that.
///
/// # Errors
/// Where the guest or a server has gone.
pub async fn connect(
    servers: &[Server],
    lanes: u16,
    opener: &Opener,
    beside: impl Fn() -> Option<Connecting>,
) -> Result<Ways, VolumeError> {
    let mut ways = Ways::new();
    for (volume, server) in (0..).zip(servers) {
        let failed = |source| VolumeError::Connect { volume: server.volume().into(), source };
        for lane in 0..lanes {
            let header = Lane { volume, lane }.encode();
            let descriptor = match beside() {
                Some(connecting) => direct(connecting, header).await,
                None => by_link(opener, header, &mut ways).await,
            };
            server.hand(&descriptor.map_err(failed)?)?;
        }
    }
    Ok(ways)
}

/// A connection of its own, which the server has alone from now on.
async fn direct(connecting: Connecting, header: [u8; Lane::LENGTH]) -> io::Result<OwnedFd> {
    let mut stream = connecting.pipe().await.map_err(io::Error::other)?;
    stream.write_all(&Port::Volume.number().to_le_bytes()).await?;
    stream.write_all(&header).await?;
    Ok(stream.into_std()?.into())
}

/// A stream of the link, which we move to a socket.
async fn by_link(opener: &Opener, header: [u8; Lane::LENGTH], ways: &mut Ways) -> io::Result<OwnedFd> {
    let mut stream = opener.open(Port::Volume).await.map_err(io::Error::other)?;
    stream.write_all(&header).await?;
    stream.flush().await?;
    let (near, far) = UnixStream::pair()?;
    near.set_nonblocking(true)?;
    let mut near = tokio::net::UnixStream::from_std(near)?;
    ways.spawn(async move {
        if let Err(error) = copy_bidirectional_with_sizes(&mut stream, &mut near, CHUNK, CHUNK).await {
            tracing::debug!(%error, "a lane broke");
        }
    });
    Ok(far.into())
}
