//! The container's log: what it wrote, line by line, with time and source.
//!
//! ```text
//!  vms/ID/container.log      2026-11-21T17:09:39.123456789Z stdout F a whole line
//!  vms/ID/container.log.1    2026-11-21T17:09:39.987654321Z stderr P the beginning of on
//! ```
//! That is the format of Podman's `k8s-file`. A file that is half as long as the log may be
//! becomes `.1`, and replaces the one before. Writing waits for nobody; what the disk does not
//! take is counted, and the log says so as soon as it can.

mod follow;
mod reader;
mod record;
mod select;
mod writer;

pub use follow::{LogError, Show};
pub use record::{Record, Source};
pub use select::Selection;
pub(super) use writer::{Log, Logged};

/// Longest text of a record, in bytes; what is longer becomes several.
const MAX_TEXT: usize = 16 << 10;
/// Longest record: text, and what stands before it.
const MAX_RECORD: usize = MAX_TEXT + 64;
/// What the older part is called.
const OLDER: &str = "container.log.1";

/// The least that a log may be limited to, in bytes: half of it holds some records.
pub const LEAST_LIMIT: u64 = 64 << 10;
