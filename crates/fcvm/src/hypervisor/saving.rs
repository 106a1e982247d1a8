//! Machines that are saved, and go on from what was saved.

use std::{fmt, path::PathBuf, pin::Pin};

use super::HypervisorError;

/// A step of it.
pub type Saving<'a> = Pin<Box<dyn Future<Output = Result<(), HypervisorError>> + 'a>>;

/// What a machine goes on from: files that never change as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Processors and devices.
    pub state: PathBuf,
    /// The memory.
    pub memory: PathBuf,
    /// The socket of a page server, which fills the memory in place of the file where the hypervisor can have
    /// that.
    pub pages: Option<PathBuf>,
}

/// Saves a machine that runs, into files of its [directory](super::MachineConfig::save_dir): `state` and
/// `memory.bin`.
///
/// ```text
///  running --ahead--> running --save--> stands still --resume--> running
/// ```
/// A step that fails leaves the machine where it was; what it has written is the caller's to remove. A caller
/// that gives up after `save` has begun resumes the machine.
pub trait Save: fmt::Debug {
    /// What can be done while it runs on, so that it stands still less long.
    fn ahead(&self) -> Saving<'_>;

    /// Stops it, and writes its state and memory.
    fn save(&self) -> Saving<'_>;

    /// Lets it run on.
    fn resume(&self) -> Saving<'_>;

    /// Whether saving breaks all connections to the guest.
    fn breaks_connections(&self) -> bool;
}
