//! What the machine of `fcvm podman run` has beyond the usual.

use crate::{
    cli::machine::Machine,
    hypervisor::{CpuTemplate, DiskLimits, HypervisorError, Jail, MachineOptions, Pages},
};

/// The options of a machine; reads the CPU template.
pub(super) fn options(arguments: &Machine) -> Result<MachineOptions, HypervisorError> {
    // Whatever else is in the way.
    if arguments.jailer && !rustix::process::geteuid().is_root() {
        return Err(HypervisorError::JailerNeedsRoot);
    }
    Ok(MachineOptions {
        balloon_mib: arguments.balloon.map(|balloon| balloon.0),
        pages: if arguments.huge_pages { Pages::Huge } else { Pages::Usual },
        cpu_template: arguments.cpu_template.as_deref().map(CpuTemplate::read).transpose()?,
        jail: arguments.jailer.then(|| jail(arguments)),
    })
}

fn jail(arguments: &Machine) -> Jail {
    Jail { user: arguments.jailer_user, cgroup: arguments.cgroup_conf.clone() }
}

/// The limits of each disk that a container's data is on: the base disk is small, and its pages are
/// shared with all other VMs.
pub(super) fn disk_limits(arguments: &Machine) -> DiskLimits {
    DiskLimits {
        bytes: arguments.disk_bps.map(|rate| rate.0),
        operations: arguments.disk_iops.map(u64::from),
    }
}
