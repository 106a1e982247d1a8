//! Streams between the host and a guest.
//!
//! ```text
//!   messages           raw bytes          channel  framed fcvm-proto messages
//!      |                   |
//!   stream ... one per port ... stream    mux      yamux: flow control per stream
//!                  |
//!               session                   session  preamble, resynchronisation
//!                  |
//!     one pipe without boundaries         (virtio-serial)
//! ```
//!
//! Code above this crate sees [`Link`]: streams that either side opens to a
//! numbered [`Port`](fcvm_proto::Port). A transport that has connections of
//! its own (vsock) needs neither session nor mux.

pub mod channel;
mod mux;
pub mod relay;
pub mod session;

pub use mux::{Incoming, Link, LinkError, Opener, Role, Stream, multiplex};
