//! Why a mount has ended.

use rustix::io::Errno;

/// Why a mount has ended, or did not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// It was unmounted, here or by another program, or its connection was aborted.
    #[error("unmounted")]
    Unmounted,
    /// The server is gone.
    #[error("the server closed lane {lane}")]
    Closed {
        /// Which lane's stream ended.
        lane: u16,
    },
    /// A stream broke.
    #[error("the stream of lane {lane} broke")]
    Stream {
        /// Whose.
        lane: u16,
        /// How.
        #[source]
        source: Errno,
    },
    /// The server sent what cannot be a reply.
    #[error("the server announced a reply of {length} bytes on lane {lane}")]
    Length {
        /// Where.
        lane: u16,
        /// What it said.
        length: u32,
    },
    /// The server sent a reply that the kernel does not take.
    #[error("the kernel refused a reply on lane {lane}")]
    Reply {
        /// Where.
        lane: u16,
        /// What the kernel says.
        #[source]
        source: Errno,
    },
    /// The kernel gives no requests.
    #[error("failed to read requests for lane {lane}")]
    Requests {
        /// Where.
        lane: u16,
        /// What it says.
        #[source]
        source: Errno,
    },
    /// The server does not want to serve this kernel.
    #[error("the server refused the kernel's first request")]
    Refused {
        /// Its answer to the kernel.
        #[source]
        source: Errno,
    },
    /// More notifications came than the kernel takes.
    #[error("the server sent more notifications than may wait")]
    Notifications,
    /// A bug of this crate.
    #[error("a thread panicked")]
    Panicked,
}

impl Ended {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Closed { .. } => Some("the server's log says why it ended"),
            Self::Length { .. } | Self::Reply { .. } => Some("use a client and a server of the same release"),
            Self::Requests { source: Errno::INVAL, .. } => {
                Some("the server lets the kernel write more at once than it takes in a frame")
            }
            _ => None,
        }
    }
}
