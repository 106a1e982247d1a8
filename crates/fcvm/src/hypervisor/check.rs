//! Whether a machine can be had, asked before anything of it is made.

use super::{Capabilities, HostMemory, Hypervisor, HypervisorError, MachineOptions, Pages};

/// What is asked of hypervisor and host.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// What else.
    pub options: &'a MachineOptions,
}

impl Request<'_> {
    /// Compares it with what the hypervisor can and what the host has.
    ///
    /// # Errors
    /// What cannot be had.
    pub fn check(&self, hypervisor: &dyn Hypervisor, host: &HostMemory) -> Result<(), HypervisorError> {
        self.compare(&hypervisor.capabilities(), hypervisor.name(), host)?;
        hypervisor.ready(self.options)
    }

    fn compare(
        &self,
        can: &Capabilities,
        hypervisor: &'static str,
        host: &HostMemory,
    ) -> Result<(), HypervisorError> {
        let &Self { cpus, memory_mib, options } = self;
        if cpus > can.max_cpus {
            return Err(HypervisorError::TooManyCpus { cpus, limit: can.max_cpus, hypervisor });
        }
        let huge_pages = options.pages == Pages::Huge;
        for (option, wanted, possible) in [
            ("--balloon", options.balloon_mib.is_some(), can.balloon),
            ("--huge-pages", huge_pages, can.huge_pages),
            ("--cpu-template", options.cpu_template.is_some(), can.cpu_templates),
            ("--jailer", options.jail.is_some(), can.jailer),
        ] {
            if wanted && !possible {
                return Err(HypervisorError::Lacks { option, hypervisor });
            }
        }
        if u64::from(memory_mib) > host.total_mib {
            return Err(HypervisorError::TooMuchMemory { memory_mib, host_mib: host.total_mib });
        }
        if let Some(balloon_mib) = options.balloon_mib
            && balloon_mib >= memory_mib
        {
            return Err(HypervisorError::LargeBalloon { balloon_mib, memory_mib });
        }
        if huge_pages { check_huge_pages(memory_mib, host) } else { Ok(()) }
    }
}

/// Firecracker would start with too few, and be killed when it runs out of them.
fn check_huge_pages(memory_mib: u32, host: &HostMemory) -> Result<(), HypervisorError> {
    if !memory_mib.is_multiple_of(Pages::HUGE_MIB) {
        return Err(HypervisorError::OddMemory { memory_mib });
    }
    let Some(pages) = host.huge_pages else { return Err(HypervisorError::NoHugePages) };
    let needed = u64::from(memory_mib / Pages::HUGE_MIB);
    if needed > pages.free {
        return Err(HypervisorError::FewHugePages { needed, pages });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{path::Path, process::ExitStatus};

    use super::*;
    use crate::{
        hypervisor::{Connecting, CpuTemplate, Death, HugePages, Jail, Machine, MachineConfig},
        snapshot::Engine,
        storage::DataDir,
    };

    /// One that can all or nothing.
    #[derive(Debug)]
    struct Able(bool);

    impl Hypervisor for Able {
        fn name(&self) -> &'static str {
            "able"
        }

        fn capabilities(&self) -> Capabilities {
            let Self(able) = *self;
            Capabilities {
                accelerated: true,
                max_cpus: 4,
                slowness: 1,
                balloon: able,
                huge_pages: able,
                cpu_templates: able,
                jailer: able,
                stream_network: able,
                page_server: able,
            }
        }

        fn launch(&self, _: &MachineConfig) -> Result<Machine, HypervisorError> {
            unreachable!("only asked")
        }

        fn reconnect(&self, _: &Path) -> Connecting {
            unreachable!("only asked")
        }

        fn engine(&self, _: &DataDir) -> Result<Engine, HypervisorError> {
            unreachable!("only asked")
        }

        fn death(&self, _: ExitStatus, _: &str) -> Death {
            Death::Unknown
        }
    }

    const HOST: HostMemory =
        HostMemory { total_mib: 4096, huge_pages: Some(HugePages { total: 300, free: 256 }) };

    fn checked(able: bool, memory_mib: u32, options: &MachineOptions, host: &HostMemory) -> String {
        let request = Request { cpus: 4, memory_mib, options };
        match request.check(&Able(able), host) {
            Ok(()) => String::new(),
            Err(error) => format!("{error}; {}", error.hint().unwrap()),
        }
    }

    #[test]
    fn what_fits_is_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        let template = CpuTemplate::read(Path::new(file.path())).unwrap();
        let all = MachineOptions {
            balloon_mib: Some(511),
            pages: Pages::Huge,
            cpu_template: Some(template),
            jail: Some(Jail::default()),
        };
        assert_eq!(checked(true, 512, &all, &HOST), "");
        assert_eq!(checked(false, 4096, &MachineOptions::default(), &HOST), "");
        for (options, name) in [
            (MachineOptions { balloon_mib: Some(0), ..MachineOptions::default() }, "--balloon"),
            (MachineOptions { pages: Pages::Huge, ..MachineOptions::default() }, "--huge-pages"),
            (MachineOptions { jail: Some(Jail::default()), ..MachineOptions::default() }, "--jailer"),
            (MachineOptions { balloon_mib: None, pages: Pages::Usual, ..all }, "--cpu-template"),
        ] {
            let said = checked(false, 512, &options, &HOST);
            assert!(said.starts_with(&format!("able has no `{name}`; ")), "{said}");
        }
    }

    #[test]
    fn what_the_host_does_not_have_is_refused() {
        let usual = MachineOptions::default();
        let huge = MachineOptions { pages: Pages::Huge, ..MachineOptions::default() };
        let balloon = MachineOptions { balloon_mib: Some(512), ..MachineOptions::default() };
        let none = HostMemory { huge_pages: None, ..HOST };
        for (memory, options, host, words) in [
            (4097, &usual, &HOST, "4097 MiB of memory are more than the 4096 MiB that this host has; "),
            (512, &balloon, &HOST, "a balloon of 512 MiB leaves nothing of 512 MiB of memory; "),
            (511, &huge, &HOST, "511 MiB of memory are no whole number of huge pages; use --memory 512m"),
            (
                514,
                &huge,
                &HOST,
                "the machine needs 257 huge pages, and this host has 256 free; as root, `sysctl vm.nr_hugepages=301`",
            ),
            (512, &huge, &none, "this host has no huge pages of 2 MiB; "),
        ] {
            let said = checked(true, memory, options, host);
            assert!(said.starts_with(words), "{said}");
        }
        let request = Request { cpus: 5, memory_mib: 1, options: &usual };
        let error = request.check(&Able(true), &HOST).unwrap_err();
        assert!(matches!(error, HypervisorError::TooManyCpus { cpus: 5, limit: 4, .. }), "{error:?}");
    }
}
