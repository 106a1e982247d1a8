//! Why there is no mount.

use std::{io, path::PathBuf};

use super::ended::Ended;
use crate::hello::{HelloError, MAX_LANES};

/// A mount could not be made, or not be taken away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No stream, or too many.
    #[error("{lanes} lanes asked for, 1 to {MAX_LANES} are possible")]
    Lanes {
        /// How many.
        lanes: usize,
    },
    /// The server did not take a lane.
    #[error("failed to greet the server on lane {lane}")]
    Hello {
        /// Which.
        lane: u16,
        /// Why.
        #[source]
        source: HelloError,
    },
    /// The mount itself.
    #[error("failed to mount or unmount")]
    Mount(#[from] MountError),
    /// The mount ended before it served.
    #[error("the mount ended before the server answered")]
    Start(#[source] Ended),
    /// The mount has ended, so that it can have no other server.
    #[error("the mount has ended")]
    Over(#[source] Ended),
    /// It has a server.
    #[error("the mount is not suspended")]
    NotSuspended,
    /// A mount's lanes stay as many as they are.
    #[error("there are {streams} streams for the {lanes} lanes of the mount")]
    Streams {
        /// How many came.
        streams: usize,
        /// How many it has.
        lanes: usize,
    },
    /// The server owes answers, and does not give them.
    #[error("the server did not answer in time what it had been asked")]
    Busy,
    /// The server took the lanes and then said nothing.
    #[error("the server did not answer the kernel's first request in time")]
    Silent,
    /// The kernel gave no further descriptor.
    #[error("failed to open the device for lane {lane}")]
    Lane {
        /// For which lane.
        lane: u16,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The machine is out of something.
    #[error("failed to {what}")]
    Resources {
        /// What was tried.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Hello { source, .. } => source.hint(),
            Self::Mount(error) => error.hint(),
            Self::Start(reason) | Self::Over(reason) => reason.hint(),
            Self::Silent | Self::Busy => Some("the server's log says what it waits for"),
            Self::Lane { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("a user who mounts has to be allowed to open `/dev/fuse`: its mode is 0666 mostly")
            }
            Self::Lanes { .. }
            | Self::NotSuspended
            | Self::Streams { .. }
            | Self::Lane { .. }
            | Self::Resources { .. } => None,
        }
    }
}

/// Mounting or unmounting failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// There is no such place.
    #[error("failed to look at `{path}`")]
    Place {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The device, or what `fusermount3` opened for us.
    #[error("failed to open `/dev/fuse`")]
    Device(#[source] io::Error),
    /// The kernel refused.
    #[error("failed to mount at `{path}`")]
    Mount {
        /// There.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("failed to unmount `{path}`")]
    Unmount {
        /// It.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An ordinary user cannot mount alone.
    #[error("`fusermount3` is not installed")]
    NoHelper,
    /// It does not start.
    #[error("failed to run `fusermount3`")]
    RunHelper {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It refused.
    #[error("`fusermount3` failed for `{path}`: {said:?}")]
    Helper {
        /// Where it was to mount or unmount.
        path: PathBuf,
        /// What it wrote.
        said: String,
    },
}

impl MountError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Device(error) if error.kind() == io::ErrorKind::NotFound => {
                Some("the kernel has no FUSE: `modprobe fuse`, or pass `/dev/fuse` to the container")
            }
            Self::NoHelper => Some("install the package `fuse3`, or mount as root"),
            Self::Helper { said, .. } if said.contains("allow_other") => {
                Some("root allows it by a line `user_allow_other` in `/etc/fuse.conf`")
            }
            _ => None,
        }
    }
}
