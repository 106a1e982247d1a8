//! Snapshots, as the guest takes part in them.
//!
//! ```text
//!  host                                             guest
//!   |-- Freeze N ---------------------------------->|  the scratch file system is synced and stands still
//!   |<--------------------------------- Frozen N ---|
//!   |   the machine is paused, saved, and goes on
//!   |-- Thaw -------------------------------------->|
//!
//!  a clone, in a session of its own:
//!   |<--------------------------------- Hello ------|
//!   |-- Restore ----------------------------------->|  time, randomness, network, identity, then the disk
//!   |<--------------------------------- Restored ---|
//! ```
//! One whose container waits for its program, in the same session:
//! ```text
//!   |-- Run --------------------------------------->|  the container has this program, and begins
//!   |<---------------- Reached(ContainerStarted) ---|
//! ```
//! A guest that is frozen thaws by itself after a while: its host may be gone.

use serde::{Deserialize, Serialize};

use crate::{Identity, Network, TerminalSize};

/// What a guest is told that goes on as another one than it was, or in another session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Random for each restored machine: what has been applied is not applied again.
    pub epoch: [u8; 16],
    /// Who it is from now on.
    pub identity: Identity,
    /// Wall clock of the host, in nanoseconds since 1970-01-01 UTC.
    pub time_unix_nanos: u64,
    /// Random bytes for the guest's pool.
    pub entropy: Vec<u8>,
    /// Its network from now on. Connections of the one before are gone.
    pub network: Network,
}

/// What a container is to run that waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments: the image's entry point and command are in it.
    pub arguments: Vec<String>,
    /// Environment beside the image's, or in its place: name, value.
    pub env: Vec<(String, String)>,
    /// Working directory in place of the image's: one that there is.
    pub workdir: Option<String>,
    /// The size of its terminal, where it has one.
    pub terminal: Option<TerminalSize>,
}
