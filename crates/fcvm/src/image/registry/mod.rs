//! Images from registries, by the OCI distribution protocol.
//!
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>
//!
//! ```text
//! name -- registries.conf --> endpoints -- manifest --> index? -- platform --> manifest
//!   in the store already: done, and named
//!   configuration, then layers, several at once:
//!       blobs/partial/HEX -- whole and verified --> blobs/sha256/HEX
//!       cut off, stalled, refused for now: waited, and gone on where it stopped
//!       killed: the next pull goes on where it stopped
//!   the disk is written meanwhile: each layer as soon as it is there
//! ```
//! A registry is not trusted: all it sends is bounded, and whatever has a
//! digest is verified before it gets its name.

mod authorization;
mod blob;
mod client;
mod connection;
mod downloads;
mod error;
mod patience;
mod pull;
mod sources;

use tokio::runtime::Runtime;

pub use client::check_login;
pub use connection::TlsOptions;
pub use error::RegistryError;
pub use patience::Patience;
pub use pull::{Access, fetch_blobs, pull, upstream};

/// Threads for downloads; two, as they verify what comes.
fn runtime() -> Result<Runtime, RegistryError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("registry")
        .enable_all()
        .build()
        .map_err(|source| RegistryError::Runtime { source })
}
