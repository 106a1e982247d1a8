//! Other processes: children that cannot outlive us, owners that are told
//! apart from a later process of the same number.

pub mod cgroup;
mod front;
pub mod messages;
mod namespaces;
mod owner;
mod parent;
pub mod sandbox;
mod signal;
mod sys;
pub mod version;

pub use front::{Front, LEFT, SOCKET};
pub use namespaces::Namespaces;
pub use owner::Owner;
pub use parent::{ACKNOWLEDGED, Parent};
pub use signal::{ParseSignalError, SignalNumber};
pub use sys::{
    die_with_parent, keep_descriptors, keep_network_administration, show_namespace, unshare, watch,
};
