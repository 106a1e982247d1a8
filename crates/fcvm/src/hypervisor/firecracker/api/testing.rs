//! A server of one answer, for the tests of all requests.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
};

use super::Client;

/// What Firecracker answers a request that is done.
pub(super) const NO_CONTENT: &[u8] =
    b"HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";

/// An answer with a body.
pub(super) fn answer(status: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer = format!(
        "HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// An answer of success with a body.
pub(super) fn ok(body: Value) -> Vec<u8> {
    answer("200", body.to_string())
}

/// A socket that the test serves.
pub(super) struct Socket {
    _directory: TempDir,
    pub(super) path: PathBuf,
    pub(super) listener: UnixListener,
}

impl Socket {
    pub(super) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        Self { _directory: directory, path, listener }
    }

    pub(super) async fn accept(&self) -> UnixStream {
        self.listener.accept().await.unwrap().0
    }
}

/// A request as it came.
#[derive(Debug)]
pub(super) struct Asked {
    line: String,
    body: Vec<u8>,
}

impl Asked {
    /// Insists on method, path and body.
    #[track_caller]
    pub(super) fn is(&self, request: &str, body: Value) {
        assert_eq!(self.line, format!("{request} HTTP/1.1"));
        assert_eq!(serde_json::from_slice::<Value>(&self.body).unwrap(), body);
    }

    /// Insists on a request for a path, without a body.
    #[track_caller]
    pub(super) fn is_get(&self, path: &str) {
        assert_eq!((&*self.line, &*self.body), (&*format!("GET {path} HTTP/1.1"), &b""[..]));
    }
}

/// Reads a request.
pub(super) async fn read_request(stream: &mut UnixStream) -> Asked {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0, "the request broke off");
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let (line, headers) = head.split_once("\r\n").unwrap();
    let length = headers.lines().find_map(|header| header.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse().unwrap());
    let mut body = bytes.split_off(end);
    while body.len() < length {
        assert_ne!(stream.read_buf(&mut body).await.unwrap(), 0, "the request broke off");
    }
    Asked { line: line.to_owned(), body }
}

/// Lets a client make one request, which gets this answer; the request.
pub(super) async fn asked(answer: impl AsRef<[u8]>, call: impl AsyncFnOnce(Client)) -> Asked {
    let socket = Socket::new();
    let client = Client::connect(&socket.path).await.unwrap();
    let served = async {
        let mut stream = socket.accept().await;
        let asked = read_request(&mut stream).await;
        stream.write_all(answer.as_ref()).await.unwrap();
        (asked, stream)
    };
    tokio::join!(served, call(client)).0.0
}

/// A client whose requests reach nobody.
pub(super) async fn nobody() -> Client {
    let socket = Socket::new();
    Client::connect(&socket.path).await.unwrap()
}
