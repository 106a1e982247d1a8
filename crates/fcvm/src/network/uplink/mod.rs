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
    veth::{Veth, closed_chains, order, remove},
};
use super::{Driver, NetworkError, plan::Plan};
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
