//! Control groups, version 2.

use std::{fs, io};

const ROOT: &str = "/sys/fs/cgroup";
/// In the order of importance: a kernel without one loses only that limit.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "pids", "cpuset", "io"];

/// Mounts cgroup2, hands its controllers down and makes the first child.
///
/// The first child with a memory controller makes the kernel flip static keys,
/// that is, patch its own code. QEMU's emulation with several CPUs may run a
/// stale translation of patched code when another CPU is busy, and the guest
/// panics. So it is done here, while nothing else runs.
pub(super) fn prepare() -> io::Result<()> {
    super::mounts::mount("cgroup2", ROOT, "cgroup2", "nsdelegate,memory_recursiveprot")?;
    let control = format!("{ROOT}/cgroup.subtree_control");
    for controller in CONTROLLERS {
        // Absent from some kernels.
        drop(fs::write(&control, format!("+{controller}")));
    }
    fs::create_dir_all(format!("{ROOT}/fcvm"))
}
