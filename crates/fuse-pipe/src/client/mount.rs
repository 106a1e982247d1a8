//! The mount itself: made, found again, and taken away.
//!
//! Root mounts by itself; an ordinary user asks `fusermount3`, which is root for that. A mount that has
//! ended stays where it is until it is taken away: an error tells programs more than an empty directory.

use std::{
    ffi::CString,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, StatxFlags, statx},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
    process::{geteuid, getgid, getuid},
};

use super::{
    device::Device,
    error::MountError,
    fusermount,
    options::{Access, Options},
};

/// How far the kernel reads ahead, in KiB: some of the largest requests at once, so that each end has one to work
/// on.
const READ_AHEAD: u32 = 4096;

/// A place where something is mounted, by us.
#[derive(Debug)]
pub(super) struct Attachment {
    path: PathBuf,
    /// By which it is told from what else may be mounted there later.
    device: (u32, u32),
    by: By,
    detached: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Root,
    Helper,
}

impl Attachment {
    /// Mounts at `path`, without waiting for the server.
    pub(super) fn new(path: &Path, options: &Options) -> Result<(Self, Device), MountError> {
        let resolved = fs::canonicalize(path).and_then(|path| Ok((fs::metadata(&path)?.mode(), path)));
        let (mode, path) = resolved.map_err(|source| MountError::Place { path: path.into(), source })?;
        let by = if geteuid().is_root() { By::Root } else { By::Helper };
        let device = match by {
            By::Root => mount_as_root(&path, mode, options)?,
            By::Helper => fusermount::mount(&path, options)?,
        };
        let mut attachment = Self { path, device: (0, 0), by, detached: false };
        match device_of(&attachment.path) {
            Ok(numbers) => attachment.device = numbers,
            Err(errno) => {
                let undone = attachment.take_away();
                tracing::debug!(?undone, "a mount could not be looked at");
                return Err(MountError::Mount { path: attachment.path, source: errno.into() });
            }
        }
        Ok((attachment, device))
    }

    /// The kernel's file that aborts the connection, where `fusectl` is mounted.
    pub(super) fn abort_file(&self) -> Option<File> {
        let (_, minor) = self.device;
        let path = format!("/sys/fs/fuse/connections/{minor}/abort");
        File::options().write(true).open(path).ok()
    }

    /// Has the kernel read files ahead by more than it does by itself, where we may say so: who reads one from its
    /// beginning to its end then waits for few answers.
    pub(super) fn read_ahead(&self) {
        let (major, minor) = self.device;
        let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
        if let Err(error) = fs::write(&path, READ_AHEAD.to_string()) {
            tracing::debug!(%error, path, "the kernel reads ahead as it likes");
        }
    }

    /// Unmounts; once is enough. Who still uses the mount gets errors from then on.
    pub(super) fn detach(&mut self) -> Result<(), MountError> {
        // Somebody else may have been faster; what is mounted there now is not ours.
        if !self.detached && device_of(&self.path) == Ok(self.device) {
            self.take_away()?;
        }
        self.detached = true;
        Ok(())
    }

    fn take_away(&self) -> Result<(), MountError> {
        match self.by {
            By::Root => match unmount(&self.path, UnmountFlags::NOFOLLOW) {
                Ok(()) => Ok(()),
                Err(Errno::BUSY) => {
                    // With an end to all requests, or its users might wait for ever.
                    let flags = UnmountFlags::NOFOLLOW | UnmountFlags::FORCE | UnmountFlags::DETACH;
                    unmount(&self.path, flags)
                }
                Err(errno) => Err(errno),
            }
            .map_err(|errno| MountError::Unmount { path: self.path.clone(), source: errno.into() }),
            By::Helper => fusermount::unmount(&self.path),
        }
    }
}

/// What device is mounted there. Without asking its server, which may not answer.
fn device_of(path: &Path) -> Result<(u32, u32), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(CWD, path, flags, StatxFlags::empty())?;
    Ok((found.stx_dev_major, found.stx_dev_minor))
}

fn mount_as_root(path: &Path, mode: u32, options: &Options) -> Result<Device, MountError> {
    use std::os::fd::{AsFd as _, AsRawFd as _};

    let device = Device::open().map_err(|errno| MountError::Device(errno.into()))?;
    let failed = |source| MountError::Mount { path: path.into(), source };
    let data = format!(
        "fd={},rootmode={mode:o},user_id={},group_id={}{}",
        device.as_fd().as_raw_fd(),
        getuid().as_raw(),
        getgid().as_raw(),
        options.common(),
    );
    let data = CString::new(data).map_err(|error| failed(io::Error::other(error)))?;
    let kind = format!("fuse.{}", options.subtype);
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    if options.access == Access::ReadOnly {
        flags |= MountFlags::RDONLY;
    }
    mount(options.source.as_str(), path, kind, flags, data.as_c_str())
        .map_err(|errno| failed(errno.into()))?;
    Ok(device)
}
