//! What is known of a VM to the thread that serves it, and to others.

use std::{
    fmt,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::atomic::{AtomicU8, Ordering::AcqRel},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    io::{Errno, read, write},
};
use serde::Serialize;

use crate::{Peer, Statistics, layout::Layout, statistics::Counts};

/// Tells a server's VMs apart. Numbers are not used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct VmId(pub(crate) u64);

impl fmt::Display for VmId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Stop serving.
pub(crate) const STOP: u8 = 1;
/// What was recorded so far is the working set.
pub(crate) const FINISH: u8 = 2;

#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) id: VmId,
    pub(crate) peer: Peer,
    pub(crate) uffd: OwnedFd,
    /// Its end is the VMM's. None for those that did not come by the socket.
    pub(crate) stream: Option<UnixStream>,
    pub(crate) layout: Layout,
    pub(crate) counts: Counts,
    pub(crate) bell: Bell,
    orders: AtomicU8,
}

impl Vm {
    pub(crate) fn new(
        id: VmId,
        peer: Peer,
        uffd: OwnedFd,
        stream: Option<UnixStream>,
        layout: Layout,
    ) -> Result<Self, Errno> {
        let (counts, bell) = (Counts::new(), Bell::new()?);
        Ok(Self { id, peer, uffd, stream, layout, counts, bell, orders: AtomicU8::new(0) })
    }

    /// Tells its thread to do something.
    pub(crate) fn order(&self, order: u8) {
        self.orders.fetch_or(order, AcqRel);
        self.bell.ring();
    }

    /// What its thread was told since it last looked.
    pub(crate) fn take_orders(&self) -> u8 {
        self.bell.silence();
        self.orders.swap(0, AcqRel)
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.counts.read(self.id, self.peer.pid())
    }
}

/// Wakes a thread that polls.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) fn new() -> Result<Self, Errno> {
        eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map(Self)
    }

    pub(crate) fn ring(&self) {
        // It fails only where it rings already.
        write(&self.0, &1_u64.to_ne_bytes()).ok();
    }

    pub(crate) fn silence(&self) {
        read(&self.0, &mut [0; 8]).ok();
    }

    pub(crate) fn descriptor(&self) -> &OwnedFd {
        &self.0
    }
}
