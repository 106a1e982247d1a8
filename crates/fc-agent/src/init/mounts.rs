//! The file systems of a guest, from initramfs to its own root.

use std::{ffi::CString, fs, io, path::Path};

use anyhow::Context as _;
use rustix::mount::{MountFlags, mount_bind, mount_move};

use super::Disks;

/// Mounts `kind` at `target`, which is made where missing.
pub(super) fn mount(source: &str, target: &str, kind: &str, options: &str) -> io::Result<()> {
    mount_with(source, target, kind, options, MountFlags::NOSUID)
}

fn mount_with(source: &str, target: &str, kind: &str, options: &str, flags: MountFlags) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let options = CString::new(options).expect("the options are ours and hold no NUL");
    rustix::mount::mount(source, target, kind, flags, options.as_c_str())?;
    Ok(())
}

/// `/proc`, `/sys`, `/dev`: in the initramfs, moved to the root later.
pub(super) fn kernel_file_systems() -> anyhow::Result<()> {
    for (kind, target, options) in
        [("proc", "/proc", ""), ("sysfs", "/sys", ""), ("devtmpfs", "/dev", "mode=755")]
    {
        match mount(kind, target, kind, options) {
            // The kernel may have mounted /dev itself.
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            result => result.with_context(|| format!("failed to mount `{target}`"))?,
        }
    }
    Ok(())
}

/// Builds the root, an overlay of the read-only base disk and the scratch disk,
/// makes it `/`, and mounts what belongs in it.
pub(super) fn root(disks: &Disks) -> anyhow::Result<()> {
    disk(&disks.base, "/base", MountFlags::RDONLY | MountFlags::NOATIME, "")?;
    // Without this the kernel would write the whole inode table in the background.
    disk(&disks.scratch, "/scratch", MountFlags::NOATIME, "noinit_itable")?;
    for directory in ["/scratch/upper", "/scratch/work", "/scratch/containers"] {
        fs::create_dir_all(directory).with_context(|| format!("failed to create `{directory}`"))?;
    }
    let layers = "lowerdir=/base,upperdir=/scratch/upper,workdir=/scratch/work";
    mount_with("overlay", "/newroot", "overlay", layers, MountFlags::NOATIME)
        .context("failed to mount the root")?;
    // Podman's overlays cannot lie on an overlay: its storage is on the disk itself.
    let storage = "/newroot/var/lib/containers";
    fs::create_dir_all(storage).with_context(|| format!("failed to create `{storage}`"))?;
    mount_bind("/scratch/containers", storage).with_context(|| format!("failed to mount `{storage}`"))?;
    for directory in ["proc", "sys", "dev"] {
        let target = format!("/newroot/{directory}");
        fs::create_dir_all(&target).with_context(|| format!("failed to create `{target}`"))?;
        mount_move(format!("/{directory}"), &target)
            .with_context(|| format!("failed to move `/{directory}`"))?;
    }
    std::env::set_current_dir("/newroot")?;
    mount_move(".", "/").context("failed to move the root")?;
    rustix::process::chroot(".").context("failed to enter the root")?;
    std::env::set_current_dir("/")?;
    for (kind, target, options) in [
        ("tmpfs", "/run", "mode=755"),
        ("tmpfs", "/dev/shm", "mode=1777"),
        ("devpts", "/dev/pts", "mode=620,gid=5,ptmxmode=666"),
        ("mqueue", "/dev/mqueue", ""),
    ] {
        match mount(kind, target, kind, options) {
            // A kernel may lack POSIX message queues.
            Err(error) if kind == "mqueue" => tracing::debug!(%error, "no message queues"),
            result => result.with_context(|| format!("failed to mount `{target}`"))?,
        }
    }
    for (link, target) in [("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")]
    {
        match std::os::unix::fs::symlink(target, Path::new("/dev").join(link)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("failed to link `/dev/{link}`"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Mounts the image disk read-only where the base's storage configuration expects it.
///
/// # Errors
/// Where it is no file system that the kernel knows.
pub(crate) fn image(device: &Path) -> anyhow::Result<()> {
    disk(device, "/run/fcvm/images", MountFlags::RDONLY | MountFlags::NOATIME, "")
}

/// Mounts a disk to write to.
///
/// # Errors
/// As of [`image`].
pub(crate) fn writable(device: &Path, target: &str) -> anyhow::Result<()> {
    disk(device, target, MountFlags::NOATIME, "noinit_itable")
}

fn disk(device: &Path, target: &str, flags: MountFlags, options: &str) -> anyhow::Result<()> {
    let source = device.to_str().context("the kernel names devices in ASCII")?;
    mount_with(source, target, "ext4", options, flags)
        .with_context(|| format!("failed to mount disk `{source}` at `{target}`"))
}
