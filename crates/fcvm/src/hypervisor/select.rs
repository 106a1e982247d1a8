//! Which hypervisor a VM gets.

use super::{Hypervisor, HypervisorError, Virtualization, qemu::Qemu, virtualization};

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
pub fn select(choice: Choice) -> Result<Selection, HypervisorError> {
    match choice {
        Choice::Firecracker => Err(HypervisorError::NoFirecracker),
        Choice::Auto | Choice::Qemu => {
            let virtualization = virtualization();
            let qemu = Qemu::find(virtualization == Virtualization::Kvm)?;
            let warning = virtualization
                .obstacle()
                .filter(|_| choice == Choice::Auto)
                .map(|why| format!("{why}; using QEMU emulation, expect ~10x slower CPU"));
            Ok(Selection { hypervisor: Box::new(qemu), warning })
        }
    }
}
