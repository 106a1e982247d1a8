//! What can go wrong with a request.

use std::{error::Error, io, path::PathBuf, time::Duration};

use hyper::Method;

/// A request to Firecracker failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// Nobody listens at the socket.
    #[error("failed to connect to Firecracker's API at `{path}`")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was to be sent cannot be.
    #[error("failed to write the request `{method} {path}`")]
    Encode {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Firecracker would not take so much, and was not asked.
    #[error("`{method} {path}` has {size} bytes, more than the {limit} that Firecracker takes")]
    RequestTooLarge {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// Bytes of the request's body.
        size: usize,
        /// Bytes that it may have.
        limit: usize,
    },
    /// Firecracker refused.
    #[error("Firecracker refused `{method} {path}` (HTTP {status}): {message}")]
    Fault {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// The HTTP status.
        status: u16,
        /// Its words, fit for a terminal.
        message: String,
    },
    /// No answer came in time; whether the request has an effect is not known.
    #[error("Firecracker did not answer `{method} {path}` within {limit:?}")]
    TimedOut {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// How long an answer was waited for.
        limit: Duration,
    },
    /// The connection ended before the answer did: Firecracker died.
    #[error("Firecracker went away during `{method} {path}`")]
    Gone {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// What the connection says.
        #[source]
        source: hyper::Error,
    },
    /// The answer is no HTTP.
    #[error("Firecracker's answer to `{method} {path}` is not HTTP")]
    Protocol {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// Why not.
        #[source]
        source: hyper::Error,
    },
    /// The answer is too long to be one of Firecracker's.
    #[error("Firecracker's answer to `{method} {path}` is longer than {limit} bytes")]
    AnswerTooLarge {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// Bytes that an answer may have.
        limit: usize,
    },
    /// The answer's body is not what the request is answered with.
    #[error("Firecracker's answer to `{method} {path}` is not understood")]
    Body {
        /// The method.
        method: Method,
        /// The path.
        path: String,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
}

impl ApiError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            // What the library says of an address that does not fit.
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::InvalidInput => Some(
                "a socket's path has 107 bytes at most: set FCVM_RUNTIME_DIR to a shorter directory".into(),
            ),
            Self::Encode { .. } => Some("Firecracker takes paths of UTF-8 only".into()),
            Self::RequestTooLarge { .. } => {
                Some("Firecracker's option --http-api-max-payload-size sets that limit".into())
            }
            Self::Gone { .. } => Some("Firecracker's own output tells why it ended".into()),
            Self::TimedOut { .. } => {
                Some("look whether this host is out of CPU time, memory or disk bandwidth".into())
            }
            _ => None,
        }
    }
}
