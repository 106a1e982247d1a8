//! Fixtures of the end-to-end tests.
//!
//! A test makes a [`TestEnv`], which owns a data directory, a directory for
//! sockets and every process started in it; dropped, it kills what runs and,
//! where the test did not fail, insists that nothing was left behind. Commands
//! are built by [`TestEnv::fcvm`]; their outputs are read all the time and can
//! be waited for. Images are made here, from nothing but Debian's busybox.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "a fixture that fails fails its test"
)]

mod assets;
mod busybox;
mod collect;
mod command;
mod engine;
mod env;
mod firecracker;
mod leaks;
mod list_tree;
mod mounts;
mod noise;
mod oci;
mod prepared;
mod proxy;
mod registry;
mod rootfs;
mod running;
mod screen;
mod skip;
pub mod suites;
pub mod talk;
#[cfg(test)]
mod tests;
mod uplink;
mod wired;
pub mod world;

pub use busybox::busybox;
pub use command::Fcvm;
pub use engine::{scaled, slowness};
pub use env::TestEnv;
pub use firecracker::{Firecracker, FirecrackerEnv};
pub use list_tree::list_tree;
pub use mounts::LoopMount;
pub use noise::{Noise, noise, sha256};
pub use oci::{Compression, Image};
pub use proxy::{Act, Arrived, Proxy, Rule};
pub use registry::{Format, REGISTRY_PROGRAMS, Registry, RegistryOptions};
pub use rootfs::{Entry, Layer};
pub use running::{Output, Running};
pub use screen::Screen;
pub use skip::{is_root, needs_programs, needs_root, skip};
pub use uplink::kill_uplink;
pub use wired::Wired;
pub use world::World;
