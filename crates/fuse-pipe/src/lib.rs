//! FUSE over any byte stream.
//!
//! ```text
//!   programs                                          files
//!      |                                                |
//!    kernel                                          server
//!      |  /dev/fuse                                     |
//!    client ========= lane: one stream ========== server
//!      |                                                |
//!      '------------- lane: another --------------------'
//! ```
//! The wire is FUSE itself. A request starts with its length, and so does a reply: the stream frames
//! itself, nothing is encoded anew, and no operation can be forgotten. Both sides are on the same machine,
//! or one in a virtual machine on the other, so that they agree on the order of bytes.
//!
//! A *lane* is one descriptor of `/dev/fuse` and one stream: the kernel wants a reply where its request was
//! read. Each stream begins with a [`hello`].

mod abi;
pub mod client;
pub mod hello;
pub mod passthrough;
pub mod server;
mod spin;
pub mod stream;
mod sys;

pub use spin::Spin;
