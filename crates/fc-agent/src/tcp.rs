//! Connections to what listens in the guest, for the host: see [`fcvm_proto::tcp`].

use std::net::{Ipv4Addr, Ipv6Addr};

use fcvm_link::{
    Stream,
    channel::{Receiver, Sender},
};
use fcvm_proto::{TcpReply, TcpRequest};
use tokio::{io::copy_bidirectional, net::TcpStream};

/// Serves one stream to its end.
pub(crate) async fn serve(mut stream: Stream) {
    let request = match Receiver::<TcpRequest, _>::new(&mut stream).receive().await {
        Ok(Some(request)) => request,
        Ok(None) => return,
        Err(error) => return tracing::warn!(%error, "a connection cannot be understood"),
    };
    let connected = match TcpStream::connect((Ipv4Addr::LOCALHOST, request.port)).await {
        // It may listen there alone.
        Err(_) => TcpStream::connect((Ipv6Addr::LOCALHOST, request.port)).await,
        connected => connected,
    };
    let reply = match &connected {
        Ok(_) => TcpReply::Connected,
        Err(error) => TcpReply::Refused(error.to_string()),
    };
    if let Err(error) = Sender::new(&mut stream).send(&reply).await {
        return tracing::debug!(%error, "nobody hears of the connection");
    }
    if let Ok(mut connected) = connected
        && let Err(error) = copy_bidirectional(&mut stream, &mut connected).await
    {
        tracing::debug!(%error, "a connection broke");
    }
}
