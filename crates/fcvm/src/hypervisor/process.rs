//! A hypervisor's process, which may be behind a keeper's.

use std::{io, os::fd::OwnedFd, process::ExitStatus};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::process::Child;

/// The process of a hypervisor. Dropped, it is killed.
#[derive(Debug)]
pub struct VmmProcess {
    /// The hypervisor, or who waits for it and ends as it does.
    child: Child,
    pid: i32,
    /// Of the hypervisor, where that is another.
    behind: Option<OwnedFd>,
}

impl VmmProcess {
    /// One that is our child.
    pub(super) fn new(child: Child) -> Self {
        let pid = child.id().map_or(0, u32::cast_signed);
        Self { child, pid, behind: None }
    }

    /// The process `pid` behind our child, which has not ended.
    ///
    /// # Errors
    /// Where it has.
    pub(super) fn behind(child: Child, pid: i32) -> io::Result<Self> {
        let process = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let behind = pidfd_open(process, PidfdFlags::empty())?;
        Ok(Self { child, pid, behind: Some(behind) })
    }

    /// The hypervisor's own number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the hypervisor's end.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Kills the hypervisor and waits for its end: all that it had is free then.
    ///
    /// # Errors
    /// Where it cannot be killed.
    pub async fn kill(&mut self) -> io::Result<()> {
        match &self.behind {
            None => self.child.kill().await,
            Some(behind) => match pidfd_send_signal(behind, Signal::KILL) {
                // The keeper tells how it has ended.
                Ok(()) | Err(Errno::SRCH) => self.child.wait().await.map(drop),
                Err(errno) => Err(errno.into()),
            },
        }
    }
}
