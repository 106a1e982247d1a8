//! VMs on disk: who they are, who owns them, what a crash left.
//!
//! ```text
//!   claim --state file, then directories--> recorded --ends--> gone
//!                                              |  \
//!                                              |   `--ends, detached without --rm--> exited --rm--> gone
//!                                              |                                       ^
//!                                              |  owner dies: the next command         |
//!                                              `--does for it what it did not----------'
//! ```
//! The state file comes first and goes last, so that nothing exists without a
//! file that names its owner. Of an exited VM its record and its log are left.
//! Names are unique among all that are recorded: they are claimed under one lock. Every change of a
//! record is also an event, in a log of its own.

mod claim;
mod error;
mod events;
mod find;
mod format;
mod garbage;
mod names;
mod registry;
mod rename;
mod restart;
mod runtime_dir;
#[cfg(test)]
pub(crate) mod testing;
mod usage;
mod watch;

pub use claim::Claim;
pub use error::StateError;
pub use events::{EventKind, EventLog, Follow, VmEvent};
pub use format::{
    FORMAT, HEALTH_LOG, HealthResult, HealthStatus, MountKind, MountRecord, ProcessType, Status, VmState,
};
pub use garbage::Garbage;
pub use names::{MAX_NAME, NameError, VmId, VmName, is_name};
pub use registry::{LOG_FILE, Life, NewVm, Registry};
pub use restart::RestartPolicy;
pub use runtime_dir::RuntimeDir;
pub use usage::{Disk, Memory, Sample, Usage};
pub use watch::{Event, Watch};
