//! What a sandbox shows: plain data, made before the fork.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use super::tap::{self, Tap};
use rustix::{
    fs::{StatVfsMountFlags, statvfs},
    mount::MountFlags,
};

/// Files and directories of the host, by the names that they have in a sandbox.
#[derive(Debug)]
pub struct View {
    /// Where it is mounted: an empty directory.
    pub(super) root: PathBuf,
    /// What of it is the sandbox's root: empty, or directories in it.
    pub(super) prefix: PathBuf,
    /// Where the program starts, in the sandbox.
    pub(super) directory: CString,
    /// To be made, in this order, from the mount's root.
    pub(super) directories: Vec<CString>,
    pub(super) mounts: Vec<Mount>,
    pub(super) tap: Option<Tap>,
}

/// One thing to show.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) source: CString,
    /// From the mount's root.
    pub(super) target: CString,
    pub(super) is_directory: bool,
    pub(super) flags: MountFlags,
}

/// What a program may do with what it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read it.
    Read,
    /// Read and run it.
    Execute,
    /// Read and change it.
    Write,
    /// Use it as the device that it is.
    Device,
}

impl View {
    /// An empty one, in an empty directory.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            prefix: PathBuf::new(),
            directory: c"/".to_owned(),
            directories: Vec::new(),
            mounts: Vec::new(),
            tap: None,
        }
    }

    /// An empty one, so many directories below an empty directory.
    ///
    /// # Errors
    /// Where the path has a NUL in it.
    pub fn below(root: &Path, prefix: &Path) -> io::Result<Self> {
        let mut view = Self::at(root);
        view.make_directories(prefix)?;
        view.prefix = prefix.to_owned();
        Ok(view)
    }

    /// Shows `source` as the absolute path `target`.
    ///
    /// # Errors
    /// Where it is not there.
    pub fn show(&mut self, source: &Path, target: &Path, access: Access) -> io::Result<()> {
        let source = std::fs::canonicalize(source)?;
        let is_directory = source.is_dir();
        let relative = target.strip_prefix("/").map_err(|_| io::ErrorKind::InvalidInput)?;
        let target = self.prefix.join(relative);
        self.make_directories(if is_directory { &target } else { target.parent().unwrap_or(Path::new("")) })?;
        let flags = flags(access) | inherited(&source)?;
        self.mounts.push(Mount {
            source: c_string(&source)?,
            target: c_string(&target)?,
            is_directory,
            flags,
        });
        Ok(())
    }

    /// Has the program start in this directory.
    ///
    /// # Errors
    /// Where the path has a NUL in it.
    pub fn start_in(&mut self, directory: &Path) -> io::Result<()> {
        self.directory = c_string(directory)?;
        Ok(())
    }

    /// Has the sandbox a tap, [`TAP`](super::TAP), that is up and belongs to this user. Whether there can be
    /// one: not where the host has no device for it.
    pub fn with_tap(&mut self, owner: u32) -> bool {
        let device = Path::new(OsStr::from_bytes(tap::DEVICE.to_bytes()));
        let possible = File::options().read(true).write(true).open(device).is_ok();
        self.tap = possible.then(|| Tap { name: tap::NAME.to_owned(), owner });
        possible
    }

    /// Gives the tap of this name, which is in the sandbox's network already, to this user.
    ///
    /// # Errors
    /// Where the name has a NUL in it.
    pub fn give_tap(&mut self, name: &str, owner: u32) -> io::Result<()> {
        self.tap = Some(Tap { name: CString::new(name)?, owner });
        Ok(())
    }

    /// What is shown, in the order of its mounts.
    pub(super) fn sources(&self) -> Vec<PathBuf> {
        let path =
            |mount: &Mount| PathBuf::from(std::ffi::OsString::from_vec(mount.source.as_bytes().to_vec()));
        self.mounts.iter().map(path).collect()
    }

    fn make_directories(&mut self, path: &Path) -> io::Result<()> {
        let mut ancestors: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        ancestors.reverse();
        for directory in ancestors {
            let directory = c_string(directory)?;
            if !self.directories.contains(&directory) {
                self.directories.push(directory);
            }
        }
        Ok(())
    }
}

fn flags(access: Access) -> MountFlags {
    let usual = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    match access {
        Access::Read => usual | MountFlags::RDONLY,
        Access::Execute => MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY,
        Access::Write => usual,
        Access::Device => MountFlags::NOSUID | MountFlags::NOEXEC,
    }
}

/// In a user namespace a mount keeps what restricts the one that it is made from, and whoever changes it has
/// to say so.
fn inherited(source: &Path) -> io::Result<MountFlags> {
    let found = statvfs(source)?.f_flag;
    let pairs = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    Ok(pairs
        .into_iter()
        .filter(|(flag, _)| found.contains(*flag))
        .fold(MountFlags::empty(), |all, (_, flag)| all | flag))
}

fn c_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}
