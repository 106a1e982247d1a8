//! Snapshots: machines on disk, from which any number of others can go on.
//!
//! ```text
//! snapshots/TAG/             one snapshot: written under another name, renamed when it is whole; or never,
//!                            where it is for those alone who go on from it now (`unnamed.rs`)
//!   manifest.json            what it is of, what it needs, what its files are: written last
//!   state                    processors and devices, in the hypervisor's own form
//!   memory.bin               the guest's memory, at its own offsets; what was never written are holes
//!   scratch.raw              the scratch disk as it was at the same moment
//!   volume-N                 what the server of that volume of the host knew of its client
//! ```
//! All of it is immutable: clones map the memory file, and copy the disk. What a snapshot says of itself is
//! not trusted before it is [checked](Snapshot::check): format, files, processor, hypervisor. How it comes and
//! goes is drawn in `store.rs`; as one file it can go elsewhere ([`export`], [`import`]).

mod archive;
mod blocks;
mod difference;
mod digest;
mod error;
mod host;
mod lock;
mod manifest;
mod moment;
mod needs;
mod partial;
mod read;
mod saved;
mod store;
mod tag;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod unnamed;

pub use archive::{export, import};
pub use error::SnapshotError;
pub use host::Host;
pub use manifest::{
    Asset, BaseRecord, ContainerRecord, Contents, Cpu, Engine, FORMAT, FileRecord, ImageRecord,
    MachineRecord, Manifest, Origin, Stamp,
};
pub use moment::Moment;
pub(crate) use needs::{assets, user_of_image};
pub use partial::Partial;
pub use saved::Snapshot;
pub use store::{Listed, Pruned, Store};
pub use tag::{ParseTagError, SnapshotTag};
pub use unnamed::Unnamed;

/// The file with the state of processors and devices.
pub const STATE: &str = "state";
/// The file with the memory.
pub const MEMORY: &str = "memory.bin";
/// The file with the scratch disk.
pub const SCRATCH: &str = "scratch.raw";
/// The file that makes a directory a snapshot.
pub const MANIFEST: &str = "manifest.json";
