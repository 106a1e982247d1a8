//! How pasta and passt say that they work: they write their number to a file, here a FIFO.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};

use crate::process::watch;

/// The file, before anybody has written.
#[derive(Debug)]
pub(super) struct Number {
    read: OwnedFd,
    /// So that it has no end.
    _write: OwnedFd,
}

impl Number {
    /// Makes the file, also in place of one.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub(super) fn expect(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let end = |flags| open(path, flags | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        Ok(Self { read: end(OFlags::RDONLY)?, _write: end(OFlags::WRONLY)? })
    }

    /// Waits until somebody has written.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) async fn written(self) -> io::Result<()> {
        let read = watch(self.read)?;
        let mut number = [0; 32];
        loop {
            let mut ready = read.readable().await?;
            let tried = ready.try_io(|read| File::from(read.get_ref().try_clone()?).read(&mut number));
            if let Ok(read) = tried {
                return read.map(drop);
            }
        }
    }
}
