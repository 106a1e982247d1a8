//! Warm starts: `fcvm podman run` goes on from a machine that another run has prepared, where there is one that is
//! the same in everything that matters.
//!
//! ```text
//!  a run ──> its key ──> cache/warm/KEY? ── yes ──> goes on from it ── fails before its container runs ──┐
//!                              │                                                                         │
//!                              no ───────────────> boots <────────── the entry is removed ───────────────┘
//!                                                    │ afterwards, in the background, or by `fcvm podman prepare`
//!  cache/warm/KEY <── saved ── a machine that boots, and whose container waits (or is healthy)
//! ```
//! What matters is in the [key](Shape), which is a digest of it all: what is not the same finds nothing. An entry is
//! a [snapshot](crate::snapshot) in a directory of its own, whose tag is the key. Which runs can be of one at all,
//! and what of a run need not be in the key, [`unfit`] and [`program`] say.

mod cache;
mod fitness;
mod key;

pub use cache::{Cache, Entry, Limits};
pub use fitness::{Fitness, prepared, program, unfit};
pub use key::{DiskStamp, NetworkShape, Shape};

/// A machine cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WarmError {
    /// A run like that cannot go on from another machine.
    #[error("a run with these options always boots: {reason}")]
    Unfit {
        /// Why.
        reason: &'static str,
    },
    /// The container did not get as far.
    #[error("the container ended before the VM could be saved, with status {code}")]
    Ended {
        /// Its status, or Podman's.
        code: u8,
    },
}

impl WarmError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unfit { .. } => {
                "leave such options out, or do without: `fcvm podman run` boots such VMs".into()
            }
            Self::Ended { .. } => "`fcvm podman run --no-snapshot` with the same arguments shows why".into(),
        })
    }
}
