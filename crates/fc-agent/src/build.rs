//! Builds an image disk with the guest's own Podman.

use std::{ffi::OsStr, path::PathBuf};

use anyhow::{Context as _, bail};
use rustix::mount::{UnmountFlags, unmount};

use crate::{init, podman, reaper::Reaper};

const STORE: &str = "/run/fcvm/build";

/// Loads the archive on the first of `disks` into a store on the second. The
/// archive's disk is padded to whole sectors: a tar ends before its padding.
///
/// # Errors
/// Where a disk is missing, or Podman cannot read the archive.
pub(crate) async fn run(disks: &[PathBuf], reaper: &Reaper) -> anyhow::Result<()> {
    let [archive, output] = disks else { bail!("a build needs two disks, there are {}", disks.len()) };
    init::mount_writable(output, STORE)?;
    let store = format!("--root={STORE}");
    let arguments = [&store, "--runroot=/run/fcvm/build-run", "load", "--quiet", "--input"].map(OsStr::new);
    podman::call(arguments.into_iter().chain([archive.as_os_str()]), reaper)
        .await
        .context("podman load failed")?;
    unmount(STORE, UnmountFlags::empty()).context("failed to unmount the new disk")
}
