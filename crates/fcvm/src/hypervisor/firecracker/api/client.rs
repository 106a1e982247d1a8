//! The connection, and requests of any kind.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, sync::Mutex, time::timeout};
use tracing::Instrument as _;

use super::ApiError;
use crate::output::sanitize;

/// Longest time to an answer. Firecracker takes milliseconds; a guest's kernel is read meanwhile.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest time to the answer of a request that moves a guest's memory.
const SNAPSHOT: Duration = Duration::from_secs(600);
/// Longest request that Firecracker takes unless told otherwise (micro-http's `MAX_PAYLOAD_SIZE`).
const MAX_REQUEST: usize = 51200;
/// Longest answer that is read: Firecracker's are a few KiB, and those with metadata as long as the
/// longest request.
const MAX_ANSWER: usize = 1 << 20;
/// Longest message taken from an error, in characters.
const MAX_SAID: usize = 2000;

/// What a client waits for and sends at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time from a request to the end of its answer.
    pub answer: Duration,
    /// The same, of making and loading snapshots.
    pub snapshot: Duration,
    /// Bytes of a request's body: what Firecracker takes (`--http-api-max-payload-size`).
    pub request: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { answer: ANSWER, snapshot: SNAPSHOT, request: MAX_REQUEST }
    }
}

/// A connection to the API of a Firecracker process.
///
/// Requests take turns on it. One that was given up, by its limit or by its caller, takes the
/// connection with it, as nothing could tell its answer from the next one's: all requests after it
/// are [`ApiError::Gone`]. Firecracker serves ten connections at most.
#[derive(Debug)]
pub struct Client {
    sender: Mutex<SendRequest<Full<Bytes>>>,
    limits: Limits,
}

/// How Firecracker words an error.
#[derive(Debug, Deserialize)]
struct FaultBody {
    fault_message: String,
}

impl Client {
    /// Connects to the socket of a process that listens already. To be called within a runtime.
    ///
    /// # Errors
    /// [`ApiError::Connect`] where nobody listens there.
    pub async fn connect(path: &Path) -> Result<Self, ApiError> {
        Self::connect_with(path, Limits::default()).await
    }

    /// Connects, with limits other than the usual ones.
    ///
    /// # Errors
    /// [`ApiError::Connect`] where nobody listens there.
    pub async fn connect_with(path: &Path, limits: Limits) -> Result<Self, ApiError> {
        let error = |source| ApiError::Connect { path: path.to_owned(), source };
        let stream = UnixStream::connect(path).await.map_err(error)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| error(std::io::Error::other(source)))?;
        // Ends with the client; how it broke, its requests say.
        tokio::spawn(
            async move {
                if let Err(error) = connection.await {
                    tracing::debug!(target: "firecracker", %error, "API connection broke");
                }
            }
            .in_current_span(),
        );
        Ok(Self { sender: Mutex::new(sender), limits })
    }

    /// `PUT`, for what has no method of its own.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn put(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Result<(), ApiError> {
        self.send(Call { method: Method::PUT, path }, body, self.limits.answer).await
    }

    /// `PUT` of what moves a guest's memory.
    pub(super) async fn put_snapshot(&self, path: &str, body: &impl Serialize) -> Result<(), ApiError> {
        self.send(Call { method: Method::PUT, path }, body, self.limits.snapshot).await
    }

    /// `PATCH`, for what has no method of its own.
    ///
    /// # Errors
    /// Where Firecracker refuses or cannot be asked.
    pub async fn patch(&self, path: &str, body: &(impl Serialize + ?Sized)) -> Result<(), ApiError> {
        self.send(Call { method: Method::PATCH, path }, body, self.limits.answer).await
    }

    /// `GET`, for what has no method of its own.
    ///
    /// # Errors
    /// Where Firecracker refuses, cannot be asked, or answers something else than a `T`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        let call = Call { method: Method::GET, path };
        let answer = self.exchange(&call, Vec::new(), self.limits.answer).await?;
        serde_json::from_slice(&answer).map_err(|source| {
            let Call { method, path } = call;
            ApiError::Body { method, path: path.to_owned(), source }
        })
    }

    async fn send(
        &self,
        call: Call<'_>,
        body: &(impl Serialize + ?Sized),
        limit: Duration,
    ) -> Result<(), ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| call.encode(error))?;
        if body.len() > self.limits.request {
            // What is beyond its limit Firecracker would read as further requests.
            let Call { method, path } = call;
            let (path, size, limit) = (path.to_owned(), body.len(), self.limits.request);
            return Err(ApiError::RequestTooLarge { method, path, size, limit });
        }
        self.exchange(&call, body, limit).await.map(drop)
    }

    /// Sends a request; the body of an answer that says success.
    async fn exchange(&self, call: &Call<'_>, body: Vec<u8>, limit: Duration) -> Result<Vec<u8>, ApiError> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(call.path)
            // Firecracker ignores it; HTTP wants it.
            .header(header::HOST, "localhost");
        if call.method != Method::GET {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::from(body)).map_err(|error| call.encode(error))?;
        // Whoever holds the connection has a limit, too.
        let mut sender = self.sender.lock().await;
        let begun = Instant::now();
        let answered = async {
            sender.ready().await.map_err(|error| call.broken(error))?;
            let answer = sender.send_request(request).await.map_err(|error| call.broken(error))?;
            let status = answer.status();
            Ok((status, read(call, answer).await?))
        };
        let (status, answer) = timeout(limit, answered).await.map_err(|_| call.timed_out(limit))??;
        let Call { method, path } = call;
        // Bodies stay out of the log: metadata may be secret.
        tracing::debug!(target: "firecracker", %method, path, status = status.as_u16(), took = ?begun.elapsed(), "asked");
        if status.is_success() { Ok(answer) } else { Err(call.fault(status, &answer)) }
    }
}

/// The body of an answer.
async fn read(call: &Call<'_>, answer: Response<Incoming>) -> Result<Vec<u8>, ApiError> {
    let mut body = answer.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| call.broken(error))?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        if bytes.len() > MAX_ANSWER {
            return Err(call.answer_too_large());
        }
    }
    Ok(bytes)
}

/// What a request is, for its errors.
#[derive(Debug)]
struct Call<'a> {
    method: Method,
    path: &'a str,
}

impl Call<'_> {
    fn names(&self) -> (Method, String) {
        (self.method.clone(), self.path.to_owned())
    }

    fn encode(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
        let (method, path) = self.names();
        ApiError::Encode { method, path, source: error.into() }
    }

    fn timed_out(&self, limit: Duration) -> ApiError {
        let (method, path) = self.names();
        ApiError::TimedOut { method, path, limit }
    }

    fn answer_too_large(&self) -> ApiError {
        let (method, path) = self.names();
        ApiError::AnswerTooLarge { method, path, limit: MAX_ANSWER }
    }

    fn broken(&self, source: hyper::Error) -> ApiError {
        let (method, path) = self.names();
        if source.is_parse() {
            ApiError::Protocol { method, path, source }
        } else {
            ApiError::Gone { method, path, source }
        }
    }

    fn fault(&self, status: StatusCode, body: &[u8]) -> ApiError {
        let (method, path) = self.names();
        // Its HTTP layer, which comes before its API, words errors otherwise, and not in proper JSON.
        let said = match serde_json::from_slice::<FaultBody>(body) {
            Ok(fault) => fault.fault_message,
            Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
        };
        let message = sanitize(&said.chars().take(MAX_SAID).collect::<String>());
        ApiError::Fault { method, path, status: status.as_u16(), message }
    }
}

#[cfg(test)]
mod tests;
