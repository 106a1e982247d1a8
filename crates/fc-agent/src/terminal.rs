//! A terminal for what runs in the guest, by its master end.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use fcvm_proto::TerminalSize;
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::descriptor::Descriptor;

#[derive(Debug)]
pub(crate) struct Terminal {
    master: Arc<Descriptor>,
}

impl Terminal {
    /// The terminal of a master end.
    ///
    /// # Errors
    /// Where it is none.
    pub(crate) fn new(master: OwnedFd, size: TerminalSize) -> io::Result<Self> {
        let terminal = Self { master: Arc::new(Descriptor::new(master)?) };
        terminal.resize(size);
        Ok(terminal)
    }

    /// A terminal of the VM, and the other end.
    ///
    /// # Errors
    /// Where there are no more.
    pub(crate) fn open(size: TerminalSize) -> io::Result<(Self, OwnedFd)> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let slave = open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        Ok((Self::new(master, size)?, slave))
    }

    pub(crate) fn end(&self) -> &Arc<Descriptor> {
        &self.master
    }

    /// Another size; whoever runs in it is told by the kernel.
    pub(crate) fn resize(&self, size: TerminalSize) {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        if let Err(error) = tcsetwinsize(self.master.get().as_fd(), size) {
            tracing::debug!(%error, "the terminal keeps its size");
        }
    }
}
