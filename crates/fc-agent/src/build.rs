//! Builds an image disk with the guest's own Podman.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};
use rustix::mount::{UnmountFlags, unmount};

use crate::{init, podman, reaper::Reaper};

const STORE: &str = "/run/fcvm/build";
/// What Podman says; its end goes into the error.
const LOG: &str = "/run/fcvm/build.log";
const LOG_END: usize = 2 << 10;

/// Loads the archive on the first of `disks` into a store on the second. The
/// archive's disk is padded to whole sectors: a tar ends before its padding.
///
/// # Errors
/// Where a disk is missing, or Podman cannot read the archive.
pub(crate) async fn run(disks: &[PathBuf], reaper: &Reaper) -> anyhow::Result<()> {
    let [archive, output] = disks else { bail!("a build needs two disks, there are {}", disks.len()) };
    init::mount_writable(output, STORE)?;
    let mut command = Command::new(podman::PROGRAM);
    command
        .args([&format!("--root={STORE}"), "--runroot=/run/fcvm/build-run", "load", "--quiet", "--input"])
        .arg(archive)
        .env_clear()
        .env("PATH", podman::PATH)
        .env("HOME", "/root");
    let log = File::create_new(LOG).context("failed to create a log")?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let (_, ended) = reaper.spawn(&mut command).context("failed to start podman")?;
    let status = ended.await?;
    if !status.success() {
        let log = fs::read(LOG).unwrap_or_default();
        let end = &log[log.len().saturating_sub(LOG_END)..];
        bail!("podman load failed: {status}: {}", String::from_utf8_lossy(end).trim());
    }
    unmount(STORE, UnmountFlags::empty()).context("failed to unmount the new disk")
}
