//! What a server tells its owner.

use std::{io, os::fd::OwnedFd};

use crate::{Failure, HandshakeError, Statistics, VmId};

/// Something has happened. Told from the server's threads: who is told must be quick.
#[derive(Debug)]
#[non_exhaustive]
pub enum Report {
    /// A VM is served from now on.
    Joined {
        /// Its number.
        vm: VmId,
        /// Its process, where it is known.
        pid: Option<i32>,
    },
    /// A connection was not taken. Whoever had said all that a VMM says, and could not be served, has been killed:
    /// it would wait for its first page for ever.
    Refused {
        /// Who connected, where that is known.
        pid: Option<i32>,
        /// Why not.
        error: HandshakeError,
    },
    /// A VM is not served any more.
    Left {
        /// What was done for it.
        statistics: Statistics,
        /// How it ended.
        ending: Ending,
    },
}

/// How a VM that was served has ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Ending {
    /// Its process ended.
    Died,
    /// It could not be served any longer. Its process was killed, and is gone.
    Killed {
        /// Why.
        failure: Failure,
    },
    /// It could not be served any longer, and its process could not be killed, so that its guest hangs. Its
    /// uffd is kept until [`crate::Server::release`].
    Stuck {
        /// Why it is not served.
        failure: Failure,
        /// Why it was not killed.
        error: io::Error,
    },
}

/// A VM that is not served any more on its owner's word.
#[derive(Debug)]
pub struct Released {
    /// What was done for it.
    pub statistics: Statistics,
    /// Where its process is not known to have ended: to be closed once it has. If the last copy is closed
    /// before, the VM's missing pages read as zeros; while one is kept and nobody serves, it waits for them.
    pub uffd: Option<OwnedFd>,
}
