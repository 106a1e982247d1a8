//! The process before a container that has our terminal.
//!
//! ```text
//!  front: fcvm podman run -it           owner: the same, in a session of its own
//!     |----- spawn; a socket; the terminal as standard streams -------->|
//!     |                                          image, boot, container |
//!     |----- signals, also of the terminal's size --------------------->|
//!     |<---- its end: the front's status is its ------------------------|
//!     |                     or
//!     |<---- one byte: the user has typed the detach keys --------------| alone from now on
//! ```
//! The owner dies with the front until the user leaves. It is the VM's process, as without a terminal.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{fd::RawFd, unix::net::UnixStream},
};

use rustix::process::{set_parent_process_death_signal, setsid};

use super::sys::inherited;

/// The number that the socket has in the owner.
pub const SOCKET: RawFd = 3;
/// What the owner says when the user leaves.
pub const LEFT: u8 = b'L';

/// An owner's front.
#[derive(Debug)]
pub struct Front {
    stream: UnixStream,
}

impl Front {
    /// Leaves the front's session. To be called before this process has opened anything.
    ///
    /// # Errors
    /// Where there is no front, or the kernel refuses.
    pub fn adopt() -> io::Result<Self> {
        let stream = UnixStream::from(inherited(SOCKET)?);
        setsid()?;
        // Where the program's file was replaced its name is `exe`.
        if let Err(error) = rustix::thread::set_name(c"fcvm") {
            tracing::debug!(%error, "the process keeps its name");
        }
        Ok(Self { stream })
    }

    /// The user leaves: gives back the terminal and the directory, and lives on alone.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn leave(&self) -> io::Result<()> {
        let null = || File::options().read(true).write(true).open("/dev/null");
        set_parent_process_death_signal(None)?;
        rustix::stdio::dup2_stdin(null()?)?;
        rustix::stdio::dup2_stdout(null()?)?;
        rustix::stdio::dup2_stderr(null()?)?;
        std::env::set_current_dir("/")?;
        (&self.stream).write_all(&[LEFT])
    }
}
