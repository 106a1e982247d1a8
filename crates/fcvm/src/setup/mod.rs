//! `fcvm setup`: kernel, base disk, initrd; what the host lacks.
//!
//! [`plan`] says what to make, [`preflight`] what the host lacks for it,
//! [`ensure`] makes it, and [`Assets::locate`] finds it again at every start.

pub mod agent;
mod assets;
mod base;
mod decompress;
mod download;
mod error;
mod firecracker;
mod initrd;
mod install;
mod jail;
mod kernel;
mod manifest;
mod mmdebstrap;
mod modules;
pub mod plan;
pub mod preflight;
mod scratch;
mod vmlinux;

pub use assets::{Assets, Overrides};
pub use decompress::DecompressError;
pub use error::SetupError;
pub use firecracker::{Fetch, ensure as ensure_firecracker};
pub use install::{Rebuild, ensure, prune};
pub use modules::{ModuleName, ModulesError, ParseModuleNameError};
pub use vmlinux::{Machine, VmlinuxError};
