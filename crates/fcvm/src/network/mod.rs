//! The network of a VM.
//!
//! ```text
//!  guest                     a network namespace of the VM's own             host
//!
//!  eth0 10.0.2.100/24 ------ tap0 10.0.2.2/24 -- rules, NAT -- uplink ------ bridged: veth, NAT
//!       fd00:fc::100/64           fd00:fc::2/64                              rootless: pasta or slirp4netns
//!       via 10.0.2.2              DNS, forwarded ports
//! ```
//! What the guest sees is the same in every VM and every mode, so that a restored guest needs no other
//! addresses. What differs is the uplink. Rules and translation are in the VM's namespace and go with it;
//! of a bridged VM there is besides a table of the host's, by the VM's id.
//!
//! Where no tap can be had and QEMU runs the VM, `passt` takes the place of all that, behind a socket.
//!
//! First a [`Request`] is given addresses and ports that nobody has, under the lock of all
//! VMs' records; then it is decided what there is to be, and then that is made.

pub mod allocate;
pub mod by_link;
pub mod denied;
pub mod dns;
mod driver;
mod error;
mod facts;
mod forwarding;
mod garbage;
mod holder;
pub mod layout;
mod links;
mod namespace;
mod nft;
pub mod plan;
mod recently;
mod record;
pub mod relay;
mod reservations;
mod routes;
pub mod rules;
mod running;
mod spec;
mod taps;
mod traffic;
mod uplink;

pub use allocate::{Allocation, Neighbour, Others};
pub use driver::usual_driver;
pub use error::NetworkError;
pub use facts::Facts;
pub use garbage::{Removal, collect, orphans};
pub use holder::Holder;
pub use namespace::{is_maker, make};
pub use record::{NetworkRecord, PortRecord, summary};
pub use reservations::{Host, Reservations, Resource};
pub use routes::{OUR_INTERFACES, Route, routes};
pub use running::{Network, Setting};
pub use spec::{
    Destination, Driver, Egress, HostEntry, HostPort, MacAddress, Mode, POOL, Ports, Prefix, Protocol,
    Publish, Request,
};
pub use taps::{Behind, can_make_taps};
pub use traffic::{Moved, moved};
