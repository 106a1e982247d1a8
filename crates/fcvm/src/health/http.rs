//! A check that is a request to a port of the guest's loopback.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

use fcvm_link::{
    Opener, Stream,
    channel::{Receiver, Sender},
};
use fcvm_proto::{Port, TcpReply, TcpRequest};
use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::{GRACE, Outcome, too_long};
use crate::output::sanitize;

/// A request and the answer it is to get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// The port in the guest.
    port: u16,
    /// `Host` of the request.
    host: String,
    /// Path and query.
    target: String,
    /// Statuses of a container that is well.
    pub expected: RangeInclusive<u16>,
}

/// A URL names nothing that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseUrlError {
    /// It is none.
    #[error("no URL: {0}")]
    Syntax(String),
    /// It is not one of `http`.
    #[error("the request is made in the guest, by `http://` only")]
    Scheme,
    /// It is not the guest.
    #[error("the request is made in the guest: its host is `localhost`")]
    Host,
}

impl FromStr for HttpCheck {
    type Err = ParseUrlError;

    /// `http://localhost[:PORT][/PATH]`; any status from 200 to 399 is expected.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Url = text.parse().map_err(|error| ParseUrlError::Syntax(format!("{error}")))?;
        if url.scheme() != "http" {
            return Err(ParseUrlError::Scheme);
        }
        let name = url.host_str().unwrap_or_default();
        if !["localhost", "127.0.0.1", "[::1]"].contains(&name) || !url.username().is_empty() {
            return Err(ParseUrlError::Host);
        }
        let port = url.port().unwrap_or(80);
        let host = url.port().map_or(name.to_owned(), |port| format!("{name}:{port}"));
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        Ok(Self { port, host, target: format!("{}{query}", url.path()), expected: 200..=399 })
    }
}

impl HttpCheck {
    pub(super) async fn run(&self, limit: Duration, opener: &Opener) -> Outcome {
        // A connection to nobody is refused at once, one that is queued is the container's delay:
        // an answer within that time means a guest that lives.
        let connected = async {
            let mut stream = opener.open(Port::Tcp).await.ok()?;
            Sender::new(&mut stream).send(&TcpRequest { port: self.port }).await.ok()?;
            let reply = Receiver::<TcpReply, _>::new(&mut stream).receive().await.ok()??;
            Some((stream, reply))
        };
        let stream = match timeout(limit + GRACE, connected).await {
            Ok(Some((stream, TcpReply::Connected))) => stream,
            Ok(Some((_, TcpReply::Refused(why)))) => return Outcome::Done(1, sanitize(&why)),
            Ok(None) | Err(_) => return Outcome::Unknown,
        };
        match timeout(limit, self.ask(stream)).await {
            Ok(Ok(status)) => {
                let code = u8::from(!self.expected.contains(&status.as_u16()));
                Outcome::Done(code, format!("HTTP {status}"))
            }
            Ok(Err(error)) => Outcome::Done(1, sanitize(&error.to_string())),
            Err(_) => too_long(limit),
        }
    }

    async fn ask(&self, stream: Stream) -> anyhow::Result<StatusCode> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(&self.target)
            .header(header::HOST, &self.host)
            .header(header::USER_AGENT, concat!("fcvm/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let asked = sender.send_request(request);
        tokio::pin!(asked, connection);
        let mut open = true;
        // The answer's body is of no interest.
        loop {
            tokio::select! {
                biased;
                response = &mut asked => return Ok(response?.status()),
                ended = &mut connection, if open => {
                    ended?;
                    open = false;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_a_port_of_the_guest() {
        let check: HttpCheck = "http://localhost:8080/health?full=1".parse().unwrap();
        assert_eq!((check.port, &*check.host, &*check.target), (8080, "localhost:8080", "/health?full=1"));
        let check: HttpCheck = "http://127.0.0.1".parse().unwrap();
        assert_eq!((check.port, &*check.host, &*check.target), (80, "127.0.0.1", "/"));
        for (bad, error) in [
            ("https://localhost/", ParseUrlError::Scheme),
            ("http://example.com/", ParseUrlError::Host),
            ("http://user@localhost/", ParseUrlError::Host),
        ] {
            assert_eq!(bad.parse::<HttpCheck>(), Err(error), "{bad}");
        }
        for bad in ["", "localhost:80/x", "http://localhost:99999/", "http://"] {
            assert!(bad.parse::<HttpCheck>().is_err(), "{bad}");
        }
    }

    /// Of real bytes on a real connection: what the answer makes of the check.
    #[tokio::test]
    async fn the_answers_status_decides() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let check: HttpCheck = "http://localhost:7/x".parse().unwrap();
        for (answer, expected) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", Outcome::Done(0, "HTTP 204 No Content".into())),
            (
                "HTTP/1.1 503 x\r\ncontent-length: 3\r\n\r\nabc",
                Outcome::Done(1, "HTTP 503 Service Unavailable".into()),
            ),
        ] {
            let (near, far) = tokio::io::duplex(1 << 12);
            let (host, host_driver) = fcvm_link::multiplex(near, fcvm_link::Role::Host);
            let (mut guest, guest_driver) = fcvm_link::multiplex(far, fcvm_link::Role::Guest);
            tokio::spawn(async move { drop(host_driver.await) });
            tokio::spawn(async move { drop(guest_driver.await) });
            let server = tokio::spawn(async move {
                let (port, mut stream) = guest.incoming.accept().await.unwrap();
                let request = Receiver::<TcpRequest, _>::new(&mut stream).receive().await.unwrap().unwrap();
                assert_eq!((port, request.port), (Port::Tcp, 7));
                Sender::new(&mut stream).send(&TcpReply::Connected).await.unwrap();
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(stream.read_u8().await.unwrap());
                }
                assert!(asked.starts_with(b"GET /x HTTP/1.1\r\nhost: localhost:7\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                guest
            });
            assert_eq!(check.run(Duration::from_secs(60), &host.opener).await, expected);
            server.await.unwrap();
        }
    }
}
