//! The control socket of a VM's owner: how other fcvm processes reach a VM that runs.
//!
//! ```text
//!  client                                       owner                         guest
//!    | connect RUNTIME_DIR/ID/control.sock        |                             |
//!    |-- frame: Request ------------------------->|                             |
//!    |<------------------------- frame: Reply ----|                             |
//!    |                                            |                             |
//!    |<======= after Stream and Done: bytes =====>|<===== stream to a port ====>|
//! ```
//! A connection is one request. Who may connect is decided by the mode of the directory. Host
//! processes of one version speak it: it is no part of the protocol with the guest.

mod client;
mod server;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use client::{Client, ControlError};
pub use server::{Action, Order, Server};

use crate::snapshot::{Contents, SnapshotTag};

/// The socket's name in the VM's directory of sockets.
const SOCKET: &str = "control.sock";

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A stream to this port of the guest, in place of this connection.
    Stream(u32),
    /// A signal for the container's first process, by its Linux number.
    Signal(i32),
    /// The container's stop signal now, and SIGKILL after so many seconds. Answered at once.
    Stop {
        /// How long the container has.
        seconds: u32,
    },
    /// The machine's end at once: nothing in it is wanted any more.
    End,
    /// The container's status, once it has ended.
    Wait,
    /// As `Stop`, and then the container once more. Answered when it runs.
    Restart {
        /// How long the container has.
        seconds: u32,
    },
    /// Another name for the VM.
    Rename(String),
    /// A snapshot, whose tag is free. Answered by `Saved` once it is whole.
    Snapshot(Wanted),
}

/// A snapshot that is to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What it is to be called.
    pub tag: SnapshotTag,
    /// What it is to have.
    pub contents: Contents,
    /// A snapshot with which its memory is to share what is the same.
    pub base: Option<SnapshotTag>,
    /// Of one that is to have no name, the place that the client has reserved for it.
    pub unnamed: Option<String>,
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// It is not, and why.
    Refused(String),
    /// To `Wait`: the container's status.
    Ended(u8),
    /// To `Snapshot`.
    Saved(Saved),
    /// To `Snapshot`: there is none.
    NotSaved {
        /// Why.
        reason: String,
        /// What to do about it.
        hint: Option<String>,
    },
}

/// How a snapshot was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// How long nobody could write to the scratch disk.
    pub frozen: Duration,
    /// How long the machine stood still: no longer than that.
    pub paused: Duration,
    /// From the order to the snapshot.
    pub all: Duration,
}
