//! Makes an image's disk: an ext4 file system that is a store of Podman's, with one image in it.
//!
//! The layers are decompressed and verified in one thread and written in another, merged into
//! one: nothing is unpacked on the host, nothing needs privileges.
//!
//! ```text
//! stored bytes -> digest, size -> decompress -> diff id -> tar entries -> ext4
//! ```
//!
//! What is on the disk is an *additional image store* of containers/storage, for its overlay
//! driver: see `containers-storage.conf(5)`, and its `docs/containers-storage.md`.

mod build;
mod builder;
mod error;
mod pipeline;
mod room;
mod store;
#[cfg(test)]
mod tests;

pub use build::build;
pub use builder::{DiskBuilder, HostBuilder, WithFallback};
pub use error::DiskError;
