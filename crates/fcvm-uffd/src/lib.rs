//! A page server: one snapshot's memory for many restored VMs.
//!
//! ```text
//!  VMM    VMM    VMM      each: anonymous memory, and a uffd that tells who waits for a page of it
//!   |      |      |       connect, and send regions and uffd: the handshake of Firecracker
//!  ====== socket ======
//!   |      |      |
//! thread thread thread    one for each VM: faults first, else the working set in advance
//!    \     |     /
//!      memory file        one for all, mapped; it does not change
//! ```
//! A page that a guest touches first is copied from the file, with neighbours; holes of the file are the
//! kernel's zero page. What a guest gives back (balloon, virtio-mem) reads as zeros from then on.
//!
//! # The contract
//!
//! A VM whose uffd nobody serves hangs, and one whose uffd is closed reads zeros. So the uffd is kept while
//! the VM's process lives: when one cannot be served, it is killed first, and its uffd is closed last; the
//! owner is told why by a [`Report`]. Whoever owns the [`Server`] ends it with [`Server::stop`]. When the
//! process of the server itself dies, its VMs hang (Firecracker has a copy of its uffd): whoever starts
//! VMMs has to see to it that they die with it.
//!
//! # Example
//!
//! ```no_run
//! use std::os::unix::net::UnixListener;
//!
//! use fcvm_uffd::{Memory, Options, Peer, RecordingOptions, Report, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let memory = Memory::open("snapshot/memory.bin")?;
//! let recording = Some(RecordingOptions::new("snapshot/memory.ws"));
//! let options = Options { recording, ..Options::default() };
//! let server = Server::new(memory, options, |report| match report {
//!     Report::Left { statistics, ending } => println!("{}: {ending:?}", statistics.vm),
//!     other => println!("{other:?}"),
//! });
//! server.listen(UnixListener::bind("run/uffd.sock")?)?;
//! // Start VMMs and have them load the snapshot, with `backend_path` `run/uffd.sock`.
//! println!("{:?}", server.statistics());
//! for vm in server.stop(|vmm: &Peer| drop(vmm.kill())) {
//!     assert!(vm.uffd.is_none(), "its process has ended");
//! }
//! # Ok(())
//! # }
//! ```
#![expect(
    clippy::cast_possible_truncation,
    reason = "64-bit machines: pages of a file that could be mapped have numbers that fit"
)]

mod bitmap;
mod door;
mod eager;
mod error;
mod events;
mod handshake;
mod install;
mod layout;
mod memory;
mod options;
mod peer;
mod recording;
mod report;
mod server;
mod service;
mod statistics;
mod sys;
mod time;
mod vm;
mod windows;
mod working_set;

pub use error::{Failure, HandshakeError, LayoutError, MemoryError};
pub use layout::{MAX_REGIONS, Region};
pub use memory::Memory;
pub use options::{Options, RecordingOptions};
pub use peer::Peer;
pub use report::{Ending, Released, Report};
pub use server::Server;
pub use statistics::{Latency, Statistics};
pub use vm::VmId;
pub use working_set::{WorkingSet, WorkingSetError};
