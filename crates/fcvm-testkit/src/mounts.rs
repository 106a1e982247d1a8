//! File systems of a test's own; need root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use tempfile::TempDir;

/// A small ext4 in a file, mounted by a loop device; gone when dropped.
#[derive(Debug)]
pub struct LoopMount {
    point: PathBuf,
    /// Holds the file and the mount point; removed once nothing is mounted.
    _directory: TempDir,
}

impl LoopMount {
    /// Makes and mounts one of that many bytes; why not, where this machine has
    /// no loop devices.
    ///
    /// # Errors
    /// What `mount` says.
    pub fn new(size: u64) -> Result<Self, String> {
        let directory = tempfile::tempdir().unwrap();
        let (point, image) = (directory.path().join("mounted"), directory.path().join("image"));
        fs::create_dir(&point).unwrap();
        fs::File::create(&image).unwrap().set_len(size).unwrap();
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&point))?;
        Ok(Self { point, _directory: directory })
    }

    /// Its root directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Bytes that are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.point).unwrap();
        found.f_bavail * found.f_frsize
    }

    /// Fills it with a file until that many bytes are free; the file.
    pub fn fill(&self, free: u64) -> PathBuf {
        let path = self.point.join("filler");
        let file = fs::File::create(&path).unwrap();
        let (mut length, mut step) = (0, self.free().saturating_sub(free));
        // The file's own metadata take some too: what does not fit is halved.
        while step >= 4096 {
            match fallocate(&file, FallocateFlags::empty(), length, step) {
                Ok(()) => length += step,
                Err(error) => assert_eq!(error, Errno::NOSPC),
            }
            step = (step / 2).min(self.free().saturating_sub(free));
        }
        path
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    let messages = || String::from_utf8_lossy(&output.stderr).trim_end().to_owned();
    if output.status.success() { Ok(()) } else { Err(messages()) }
}

impl Drop for LoopMount {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(&self.point)) {
            eprintln!("`{}` stays mounted: {error}", self.point.display());
        }
    }
}
