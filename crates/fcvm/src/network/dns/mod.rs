//! The resolver at a guest's gateway.
//!
//! ```text
//!  guest                  gateway, port 53                    the host's side
//!
//!  query, UDP or TCP ---> well-formed? ---- no ----> FORMERR, NOTIMP, or nothing
//!                         allowed by name? - no ----> REFUSED, and a line in the log
//!                              | yes
//!                         an id of ours ------------> upstream: each query from a socket of its own
//!                              |                      silent for two seconds, refused, SERVFAIL: the next
//!                         id and question match? <--- answer
//!                              |                      nobody answers: SERVFAIL
//!                         addresses of allowed names
//!                         are let through the firewall
//!  answer           <---- the id of the guest's
//! ```
//! Nothing is cached and nothing is decided here but who is asked and what may be asked: the bytes of
//! questions and answers pass unchanged. So each answer is as new as the host's resolver makes it, and
//! types of records that are yet to be invented work.
//!
//! The listening sockets belong to the VM's network namespace; those to the upstreams are the owner's, and
//! so resolvers on the host's loopback can be asked without being reachable for the guest.
//!
//! The guest is hostile: queries at once, connections, and the lengths of messages have bounds, and nobody
//! waits for a guest that does not read. What is beyond waits in the kernel's queues, or is lost as
//! datagrams are. Updates and transfers of zones are refused: servers allow them to certain addresses, and
//! the guest would ask with the host's.

mod exchange;
mod message;
mod policy;
mod proxy;
#[cfg(test)]
mod tests;
mod upstream;

pub use policy::{Learn, Learning, NameError, Names, Policy};
pub use proxy::{Listeners, Proxy};
pub use upstream::{HostResolvers, ResolvConf, Upstream};
