//! What this host's CPU and kernel offer.

use std::{fs, path::Path};

use procfs::{Current as _, Meminfo};
use rustix::fs::{Access, access};

/// What the kernel tells of pages of 2 MiB.
const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Whether KVM can run a stock kernel here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtualization {
    /// `/dev/kvm` opens and there is hardware behind it.
    Kvm,
    /// There is no `/dev/kvm`.
    NoDevice,
    /// `/dev/kvm` is there, but not for this user.
    NoPermission,
    /// `/dev/kvm` is there without vmx or svm behind it: a stock kernel hangs in it.
    NoHardware,
    /// The same, by the module `kvm_pvm`: page-table VMs, which run in user mode and have their
    /// kernels emulated.
    Pvm,
}

impl Virtualization {
    /// Why guests are emulated; `None` where they are not.
    #[must_use]
    pub fn obstacle(self) -> Option<&'static str> {
        match self {
            Self::Kvm => None,
            Self::NoDevice => Some("no /dev/kvm"),
            Self::NoPermission => Some("no permission for /dev/kvm (is this user in group kvm?)"),
            Self::NoHardware => Some("no hardware virtualization behind /dev/kvm"),
            Self::Pvm => Some("/dev/kvm is that of page-table VMs (kvm_pvm), in which no stock kernel runs"),
        }
    }

    /// Whether there is a KVM that runs only kernels made for it.
    #[must_use]
    pub fn is_software(self) -> bool {
        matches!(self, Self::NoHardware | Self::Pvm)
    }

    /// What a user can do about the obstacle.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::Kvm => "nothing is to be done",
            Self::NoDevice => {
                "load the module kvm_intel or kvm_amd, or enable (nested) virtualization; or use --hypervisor qemu, which emulates"
            }
            Self::NoPermission => {
                "add yourself to the device's group: `usermod -aG kvm $USER`, and log in again; or use --hypervisor qemu, which emulates"
            }
            Self::NoHardware | Self::Pvm => {
                "where you have a kernel made for this KVM give it with --kernel; or use --hypervisor qemu, which emulates"
            }
        }
    }
}

/// The memory of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostMemory {
    /// All of it, in MiB; as much as can be where the kernel does not tell.
    pub total_mib: u64,
    /// Huge pages of 2 MiB, where the kernel has them.
    pub huge_pages: Option<HugePages>,
}

/// Pages that a host has set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugePages {
    /// In all.
    pub total: u64,
    /// Neither used nor promised to anyone.
    pub free: u64,
}

impl HostMemory {
    /// What is there now.
    #[must_use]
    pub fn now() -> Self {
        let total_mib = Meminfo::current().map_or(u64::MAX, |memory| memory.mem_total >> 20);
        Self { total_mib, huge_pages: HugePages::in_directory(Path::new(HUGE_PAGES)) }
    }
}

impl HugePages {
    fn in_directory(directory: &Path) -> Option<Self> {
        let number = |name| fs::read_to_string(directory.join(name)).ok()?.trim().parse::<u64>().ok();
        let free = number("free_hugepages")?.saturating_sub(number("resv_hugepages")?);
        Some(Self { total: number("nr_hugepages")?, free })
    }
}

/// Looks at `/dev/kvm` and the CPU's flags.
#[must_use]
pub fn virtualization() -> Virtualization {
    let device = Path::new("/dev/kvm");
    if !device.exists() {
        return Virtualization::NoDevice;
    }
    if access(device, Access::READ_OK | Access::WRITE_OK).is_err() {
        return Virtualization::NoPermission;
    }
    if cfg!(target_arch = "x86_64") && !fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| has_flag(&info))
    {
        let pvm = Path::new("/sys/module/kvm_pvm").exists();
        return if pvm { Virtualization::Pvm } else { Virtualization::NoHardware };
    }
    Virtualization::Kvm
}

/// Whether the first `flags` line of `/proc/cpuinfo` has vmx or svm.
fn has_flag(cpuinfo: &str) -> bool {
    cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_promised_are_not_free() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(HugePages::in_directory(directory.path()), None);
        for (name, number) in [("nr_hugepages", "8\n"), ("free_hugepages", "6\n"), ("resv_hugepages", "4\n")]
        {
            fs::write(directory.path().join(name), number).unwrap();
        }
        assert_eq!(HugePages::in_directory(directory.path()), Some(HugePages { total: 8, free: 2 }));
        assert!(HostMemory::now().total_mib > 64);
    }

    #[test]
    fn flags_are_whole_words() {
        assert!(has_flag("processor : 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_flag("flags : svm\n"));
        assert!(!has_flag("flags : svml avmx\nbugs : vmx\n"));
        assert!(!has_flag("flags\t\t: fpu svm_lock\nvmx flags\t: vnmi\n"));
        assert!(!has_flag(""));
    }
}
