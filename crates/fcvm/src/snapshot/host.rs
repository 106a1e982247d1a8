//! Whether a snapshot is for this host.

use std::io;

use fcvm_proto::PROTOCOL;
use procfs::{CpuInfo, Current as _};

use super::{Contents, Cpu, Engine, Manifest, SnapshotError, SnapshotTag};

/// What a snapshot is to go on on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The hypervisor.
    pub engine: Engine,
    /// The processor.
    pub cpu: Cpu,
}

/// The accelerator by which the host's processor runs the guest's code itself.
const KVM: &str = "kvm";

impl Cpu {
    /// The processor of this host.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn of_this_host() -> io::Result<Self> {
        let info = CpuInfo::current().map_err(io::Error::other)?;
        Ok(Self::of(&info, std::env::consts::ARCH))
    }

    fn of(info: &CpuInfo, architecture: &str) -> Self {
        let (vendor, model) = match architecture {
            "aarch64" => ("CPU implementer", "CPU part"),
            _ => ("vendor_id", "model name"),
        };
        let field = |name: &str| info.get_field(0, name).unwrap_or("unknown").trim().to_owned();
        Self { architecture: architecture.to_owned(), vendor: field(vendor), model: field(model) }
    }
}

impl Engine {
    /// The first two numbers of its version.
    fn series(&self) -> Option<(u32, u32)> {
        let mut numbers = self
            .version
            .split(|character: char| !character.is_ascii_digit())
            .filter(|digits| !digits.is_empty())
            .map_while(|digits| digits.parse().ok());
        Some((numbers.next()?, numbers.next()?))
    }

    /// Whether it loads the states that another one saved.
    fn loads(&self, other: &Self) -> bool {
        let same =
            self.version == other.version || (self.series().is_some() && self.series() == other.series());
        self.name == other.name && self.accelerator == other.accelerator && same
    }

    /// As people call it.
    #[must_use]
    pub fn title(&self) -> String {
        let Self { name, version, accelerator } = self;
        match accelerator.as_str() {
            KVM => format!("{name} {version}"),
            other => format!("{name} {version} ({other})"),
        }
    }
}

/// Refuses a host that the snapshot cannot go on on.
pub(super) fn check(manifest: &Manifest, tag: &SnapshotTag, host: &Host) -> Result<(), SnapshotError> {
    let same = |what, needed: &str, found: &str| {
        if needed == found {
            return Ok(());
        }
        let (needed, found) = (needed.to_owned(), found.to_owned());
        Err(SnapshotError::Host { tag: tag.clone(), what, needed, found })
    };
    let (cpu, engine) = (&manifest.cpu, &manifest.hypervisor);
    same("architecture", &cpu.architecture, &host.cpu.architecture)?;
    // A disk boots on anything of its architecture.
    if manifest.contents == Contents::Disk {
        return Ok(());
    }
    // What runs in it goes on running.
    if manifest.protocol != PROTOCOL {
        return Err(SnapshotError::Protocol { tag: tag.clone(), found: manifest.protocol });
    }
    if !host.engine.loads(engine) {
        let (needed, found) = (engine.title(), host.engine.title());
        return Err(SnapshotError::Engine { tag: tag.clone(), needed, found });
    }
    // An emulated processor is the same on any host.
    if engine.accelerator == KVM {
        same("CPU vendor", &cpu.vendor, &host.cpu.vendor)?;
        same("CPU model", &cpu.model, &host.cpu.model)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use procfs::FromRead as _;

    use super::*;
    use crate::snapshot::testing::{host, manifest};

    #[test]
    fn the_processor_is_what_the_kernel_says() {
        let of =
            |text: &str, architecture| Cpu::of(&CpuInfo::from_read(text.as_bytes()).unwrap(), architecture);
        let x86 = "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: Some CPU @ 2 GHz\n\n";
        let cpu = of(x86, "x86_64");
        assert_eq!((cpu.vendor.as_str(), cpu.model.as_str()), ("GenuineIntel", "Some CPU @ 2 GHz"));
        let arm = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n";
        let cpu = of(arm, "aarch64");
        assert_eq!((cpu.vendor.as_str(), cpu.model.as_str()), ("0x41", "0xd40"));
        let here = Cpu::of_this_host().unwrap();
        assert_eq!(here.architecture, std::env::consts::ARCH);
        assert_eq!(here, Cpu::of_this_host().unwrap());
    }

    #[test]
    fn another_host_is_refused_with_the_reason() {
        let manifest = manifest("web");
        let refused = |change: fn(&mut Host)| {
            let mut host = host();
            change(&mut host);
            check(&manifest, &manifest.tag, &host).unwrap_err().to_string()
        };
        assert!(check(&manifest, &manifest.tag, &host()).is_ok());
        for (change, words) in [
            (
                (|host| host.cpu.architecture = "riscv64".into()) as fn(&mut Host),
                "architecture `x86_64`, and this one has `riscv64`",
            ),
            (|host| host.cpu.vendor = "Other".into(), "CPU vendor `GenuineIntel`"),
            (|host| host.cpu.model = "Other".into(), "CPU model `Some CPU`"),
            (|host| host.engine.name = "qemu".into(), "made by firecracker 1.16.1, and qemu 1.16.1 cannot"),
            (|host| host.engine.version = "1.17.0".into(), "firecracker 1.17.0 cannot load it"),
            (|host| host.engine.version = "2.16.1".into(), "firecracker 2.16.1 cannot load it"),
            (|host| host.engine.accelerator = "tcg".into(), "firecracker 1.16.1 (tcg) cannot load it"),
        ] {
            let message = refused(change);
            assert!(message.contains(words), "{message}");
        }
        let mut older = manifest.clone();
        older.protocol -= 1;
        let error = check(&older, &older.tag, &host()).unwrap_err();
        assert!(matches!(error, SnapshotError::Protocol { .. }) && error.hint().is_some(), "{error}");
        older.contents = Contents::Disk;
        assert!(check(&older, &older.tag, &host()).is_ok(), "another agent boots");
        let mut patched = host();
        patched.engine.version = "v1.16.9-dev".into();
        assert!(check(&manifest, &manifest.tag, &patched).is_ok());
    }

    #[test]
    fn what_does_not_depend_on_the_processor_goes_on_on_any() {
        let mut manifest = manifest("web");
        let mut other = host();
        other.cpu.model = "Other".into();
        other.cpu.vendor = "Other".into();
        manifest.hypervisor.accelerator = "tcg".into();
        other.engine.accelerator = "tcg".into();
        assert!(check(&manifest, &manifest.tag, &other).is_ok());
        other.engine = Engine { name: "qemu".into(), version: "10.0".into(), accelerator: KVM.into() };
        assert!(check(&manifest, &manifest.tag, &other).is_err());
        manifest.contents = Contents::Disk;
        assert!(check(&manifest, &manifest.tag, &other).is_ok());
        other.cpu.architecture = "riscv64".into();
        assert!(check(&manifest, &manifest.tag, &other).is_err());
    }
}
