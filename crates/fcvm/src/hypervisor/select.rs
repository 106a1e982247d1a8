//! Which hypervisor a VM gets.

use std::path::Path;

use super::{Hypervisor, HypervisorError, Virtualization, firecracker, qemu::Qemu, virtualization};
use crate::storage::DataDir;

/// What the user asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The best that works here
    #[default]
    Auto,
    /// Firecracker
    Firecracker,
    /// QEMU's microvm, by KVM or emulation
    Qemu,
}

/// What a choice depends on, besides the host.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// What the user asked for.
    pub choice: Choice,
    /// Firecracker's program, where the user named it.
    pub firecracker: Option<&'a Path>,
    /// Whether the user brings a kernel: it may be made for a KVM that others hang in.
    pub own_kernel: bool,
}

/// The hypervisor chosen.
#[derive(Debug)]
pub struct Selection {
    /// It.
    pub hypervisor: Box<dyn Hypervisor>,
    /// What the user should know about the choice.
    pub warning: Option<String>,
}

/// Chooses a hypervisor that works on this host.
///
/// # Errors
/// Where none does, or the forced one does not.
pub fn select(wanted: &Wanted<'_>, data: &DataDir) -> Result<Selection, HypervisorError> {
    let host = virtualization();
    let find = || firecracker::find(wanted.firecracker, data);
    let warning = match plan(wanted, host) {
        Plan::Firecracker => return Ok(Selection { hypervisor: Box::new(find()?), warning: None }),
        Plan::Refused => return Err(HypervisorError::NoKvm { obstacle: host }),
        Plan::FirecrackerOrQemu => match find() {
            Ok(firecracker) => return Ok(Selection { hypervisor: Box::new(firecracker), warning: None }),
            // What was named is meant.
            Err(error) if wanted.firecracker.is_some() => return Err(error),
            Err(error) => Some(format!("{error}; using QEMU with KVM")),
        },
        Plan::EmulateWithWarning => {
            host.obstacle().map(|why| format!("{why}; using QEMU emulation, expect ~10x slower CPU"))
        }
        Plan::Qemu => None,
    };
    let qemu = Qemu::find(host == Virtualization::Kvm)?;
    Ok(Selection { hypervisor: Box::new(qemu), warning })
}

/// What to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Firecracker,
    FirecrackerOrQemu,
    Qemu,
    EmulateWithWarning,
    Refused,
}

fn plan(wanted: &Wanted<'_>, host: Virtualization) -> Plan {
    match (wanted.choice, host) {
        (Choice::Qemu, _) => Plan::Qemu,
        (Choice::Auto, Virtualization::Kvm) => Plan::FirecrackerOrQemu,
        (Choice::Auto, _) => Plan::EmulateWithWarning,
        (Choice::Firecracker, Virtualization::Kvm) => Plan::Firecracker,
        (Choice::Firecracker, host) if host.is_software() && wanted.own_kernel => Plan::Firecracker,
        (Choice::Firecracker, _) => Plan::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn firecracker_needs_a_kvm_that_runs_the_kernel() {
        let wanted = |choice, own_kernel| Wanted { choice, firecracker: None, own_kernel };
        for (choice, own_kernel, host, expected) in [
            (Choice::Auto, false, Virtualization::Kvm, Plan::FirecrackerOrQemu),
            (Choice::Auto, true, Virtualization::NoHardware, Plan::EmulateWithWarning),
            (Choice::Auto, false, Virtualization::NoPermission, Plan::EmulateWithWarning),
            (Choice::Firecracker, false, Virtualization::Kvm, Plan::Firecracker),
            (Choice::Firecracker, true, Virtualization::NoHardware, Plan::Firecracker),
            (Choice::Firecracker, true, Virtualization::Pvm, Plan::Firecracker),
            (Choice::Firecracker, false, Virtualization::NoHardware, Plan::Refused),
            (Choice::Firecracker, true, Virtualization::NoDevice, Plan::Refused),
            (Choice::Firecracker, true, Virtualization::NoPermission, Plan::Refused),
            (Choice::Qemu, false, Virtualization::Kvm, Plan::Qemu),
            (Choice::Qemu, false, Virtualization::NoDevice, Plan::Qemu),
        ] {
            assert_eq!(plan(&wanted(choice, own_kernel), host), expected, "{choice:?} {host:?}");
        }
    }
}
