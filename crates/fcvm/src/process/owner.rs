//! Who owns something: a process id is reused, a process id with its start
//! time and boot is not.

use std::{io, os::fd::OwnedFd, time::Duration};

use procfs::process::Process;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde::{Deserialize, Serialize};

use super::watch;

/// A process, told apart from any other that has or had its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since the boot (field 22 of `/proc/PID/stat`).
    pub start_time: u64,
    /// The kernel's boot id.
    pub boot_id: String,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// Where `/proc` is not there.
    pub fn current() -> io::Result<Self> {
        Self::of(std::process::id().cast_signed())?
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "this process is not in /proc"))
    }

    /// The process of that number, if there is one.
    ///
    /// # Errors
    /// Where `/proc` cannot be read.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        Ok(Self::look(pid)?.filter(|(_, state)| !matches!(state, 'Z' | 'X')).map(|(owner, _)| owner))
    }

    /// The same, with the process's state. One that is a zombie may have threads that die still, and
    /// with them files and sockets.
    fn look(pid: i32) -> io::Result<Option<(Self, char)>> {
        let stat = match Process::new(pid).and_then(|process| process.stat()) {
            Ok(stat) => stat,
            Err(procfs::ProcError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(io::Error::other(error)),
        };
        let boot_id = fs_err::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
        Ok(Some((Self { pid, start_time: stat.starttime, boot_id }, stat.state)))
    }

    /// Whether that very process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        // What cannot be judged is left alone.
        Self::of(self.pid).map_or(true, |now| now.as_ref() == Some(self))
    }

    /// Sends a signal to that very process; `false` where it no longer runs.
    ///
    /// # Errors
    /// Where the signal is not permitted.
    pub fn signal(&self, signal: Signal) -> io::Result<bool> {
        Ok(self.is_alive() && self.send(signal)?.is_some())
    }

    /// Kills that very process and waits for its end: until then it may hold files
    /// and sockets, also where its death has begun already.
    ///
    /// # Errors
    /// Where killing it is not permitted; `TimedOut` where it still runs afterwards.
    pub fn kill(&self, timeout: Duration) -> io::Result<()> {
        let Some(pidfd) = self.send(Signal::KILL)? else { return Ok(()) };
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
        loop {
            match poll(&mut ended, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A descriptor that is readable once that very process has ended, all of it; `None` where it has.
    ///
    /// # Errors
    /// Where the kernel gives none.
    pub fn pidfd(&self) -> io::Result<Option<OwnedFd>> {
        // A record may have any number.
        let Some(pid) = Pid::from_raw(self.pid).filter(|_| self.pid > 0) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The descriptor names whoever has the number now; only then is it known to be the same.
        let same = Self::look(self.pid)?.is_some_and(|(now, _)| now == *self);
        Ok(same.then_some(pidfd))
    }

    /// Waits for the end of that very process.
    ///
    /// # Errors
    /// Where the kernel cannot tell.
    pub async fn ended(&self) -> io::Result<()> {
        let Some(pidfd) = self.pidfd()? else { return Ok(()) };
        drop(watch(pidfd)?.readable().await?);
        Ok(())
    }

    fn send(&self, signal: Signal) -> io::Result<Option<OwnedFd>> {
        let Some(pidfd) = self.pidfd()? else { return Ok(None) };
        match pidfd_send_signal(&pidfd, signal) {
            Ok(()) => Ok(Some(pidfd)),
            Err(Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_number_is_another_process() {
        let own = Owner::current().unwrap();
        assert!(own.is_alive());
        let other = Owner { start_time: own.start_time + 1, ..own.clone() };
        assert!(!other.is_alive());
        assert!(!other.signal(Signal::KILL).unwrap());
        let other_boot = Owner { boot_id: "another".into(), ..own };
        assert!(!other_boot.is_alive());
    }

    #[test]
    fn an_ended_process_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let owner = Owner::of(child.id().cast_signed()).unwrap().unwrap();
        owner.kill(Duration::from_secs(60)).unwrap();
        assert!(!owner.is_alive(), "it was waited for");
        child.wait().unwrap();
        assert!(!owner.is_alive());
        assert!(!owner.signal(Signal::KILL).unwrap());
    }
}
