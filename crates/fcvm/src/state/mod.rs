//! VMs on disk: who they are, who owns them, what a crash left.
//!
//! ```text
//!   claim --state file, then directories--> recorded --release--> gone
//!                                              |
//!                    owner dies without release: collected by the next command
//! ```
//! The state file comes first and goes last, so that nothing exists without a
//! file that names its owner. Names are unique among the living: they are
//! claimed under one lock.

mod error;
mod format;
mod names;
mod registry;
mod runtime_dir;
mod usage;

pub use error::StateError;
pub use format::{FORMAT, HealthStatus, ProcessType, Status, VmState};
pub use names::{NameError, VmId, VmName};
pub use registry::{Claim, NewVm, Registry};
pub use runtime_dir::RuntimeDir;
pub use usage::Usage;
