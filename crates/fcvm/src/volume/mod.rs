//! Volumes: directories and files of the host in the guest, by `fuse-pipe`.
//!
//! ```text
//!   --map HOST:GUEST                                               container
//!     |  parsed (spec), found on the host (map, store)                 |  bind mount, by Podman
//!     v                                                                v
//!   server process -- lanes: a socket each --> link, or vsock --> FUSE mount by the agent
//! ```
//! Each volume has a process of its own to serve it: whatever a guest makes of one, it has the files of
//! that one only. The process dies with the VM's owner, and gets its lanes from it. Of a VM that goes on from a
//! snapshot it knows what that of the first one knew: which files have which numbers, and which are open.

mod error;
mod lanes;
mod map;
mod record;
mod server;
mod spec;
mod store;

pub use error::VolumeError;
pub use lanes::{Ways, connect};
pub use map::{Map, Mounts};
pub use record::{VolumeRecord, state_file};
pub use server::{Server, is_server, serve};
pub use spec::{Cache, Ids, Mount, MountSpec, Options, Source, VolumeSpec};
pub use store::{Held, Listed, Stored, VolumeName, VolumeStore};
