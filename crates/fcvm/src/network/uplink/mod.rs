//! What leads out of a VM's namespace.

mod passt;
mod pasta;
mod process;
mod ready;
mod slirp4netns;
mod veth;

use std::{path::Path, sync::Arc};

pub(super) use self::{
    passt::{SOCKET, is_loopback, start as start_socket},
    process::Process,
    veth::{Veth, closed_chains, remove},
};
use super::{
    Driver, NetworkError, namespace,
    plan::{self, Plan},
};
use crate::process::Namespaces;

/// Where a process finds the namespace that it is to connect.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The namespaces.
    pub(super) namespaces: &'a Arc<Namespaces>,
    /// A process that is in them.
    pub(super) pid: u32,
    /// The VM's directory of sockets.
    pub(super) runtime_dir: &'a Path,
}

/// What the uplink is to be in the namespace, where that is not for its process to say.
pub(super) fn order(plan: &Plan) -> Option<namespace::Uplink> {
    match &plan.uplink {
        plan::Uplink::Veth(link) => Some(veth::order(link)),
        plan::Uplink::Process(Driver::Slirp4netns) => Some(slirp4netns::order(plan)),
        plan::Uplink::Process(_) | plan::Uplink::Socket => None,
    }
}

/// Starts the process of a rootless uplink, and waits until it leads somewhere.
///
/// # Errors
/// Where it is not installed, or cannot have a port.
pub(super) async fn start(driver: Driver, plan: &Plan, place: &Place<'_>) -> Result<Process, NetworkError> {
    match driver {
        Driver::Pasta => pasta::start(plan, place).await,
        Driver::Slirp4netns => slirp4netns::start(plan, place).await,
        Driver::Passt => start_socket(plan, place.runtime_dir).await,
    }
}
