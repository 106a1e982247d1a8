//! Makes an image's disk in a VM, with the guest's own Podman: for what our
//! writer does not understand, and to compare it with.

use std::{collections::BTreeMap, error::Error, fs::File, os::unix::fs::MetadataExt as _, path::Path};

use fcvm_proto::Job;

use super::{DetachKeys, Input, Output, Plan, Starter, Timings, log::LEAST_LIMIT, run};
use crate::{
    hypervisor::{Access, Disk, DiskLimits, Hypervisor, MachineOptions},
    image::{
        archive,
        disk::{DiskBuilder, DiskError},
        model::{DiskSource, DiskStats},
    },
    network::Request,
    process::SignalNumber,
    setup::Assets,
    state::{Life, NewVm, Registry, RestartPolicy},
    storage::cow,
};

/// The size of a builder's machine.
const CPUS: u8 = 2;
const MEMORY_MIB: u32 = 1024;
/// Disks are made of whole sectors.
const SECTOR: u64 = 512;

/// Boots a VM for each disk.
#[derive(Debug)]
pub struct GuestBuilder<'a> {
    /// What runs the VM.
    pub hypervisor: &'a dyn Hypervisor,
    /// What it boots from. The new disk begins as a copy of the scratch template.
    pub assets: &'a Assets,
    /// Where the VM is recorded.
    pub registry: &'a Registry,
}

impl DiskBuilder for GuestBuilder<'_> {
    fn build(&self, target: &Path, source: &DiskSource) -> Result<DiskStats, DiskError> {
        let write = |source| DiskError::Write { path: target.to_owned(), source };
        // The first builder may have left its attempt.
        if target.exists() {
            std::fs::remove_file(target).map_err(write)?;
        }
        cow::copy(&self.assets.scratch_template, target).map_err(write)?;
        self.load(target, source).map_err(DiskError::Guest)?;
        let disk = File::open(target).and_then(|disk| disk.metadata()).map_err(write)?;
        // What is in the store is Podman's to know.
        let allocated = disk.blocks() * 512;
        Ok(DiskStats { bytes: disk.len(), allocated, files: 0, unpacked: allocated })
    }
}

impl GuestBuilder<'_> {
    /// Has a guest load the image into the store on `target`.
    fn load(&self, target: &Path, source: &DiskSource) -> Result<(), Box<dyn Error + Send + Sync>> {
        let mut claim = self.registry.claim(NewVm {
            name: None,
            hypervisor: self.hypervisor.name().into(),
            image: source.manifest_digest.to_string(),
            command: Vec::new(),
            cpus: CPUS,
            memory_mib: MEMORY_MIB,
            life: Life::Foreground,
            mounts: Vec::new(),
            labels: BTreeMap::new(),
            restart_policy: RestartPolicy::No,
            process_type: crate::state::ProcessType::Vm,
            snapshot: None,
            serve_pid: None,
        })?;
        let archive_path = claim.directory().join("image.tar");
        let file = File::create_new(&archive_path)?;
        archive::write(source, &file)?;
        file.set_len(file.metadata()?.len().next_multiple_of(SECTOR))?;
        let limits = DiskLimits::default();
        let disk = |serial: &str, path: &Path, access| Disk {
            serial: serial.into(),
            path: path.into(),
            access,
            limits,
        };
        let plan = Plan {
            maps: Vec::new(),
            assets: self.assets.clone(),
            job: Job::BuildImage,
            disks: vec![
                disk("other0", &archive_path, Access::ReadOnly),
                disk("other1", target, Access::Durable),
            ],
            hostname: claim.state().id.short().to_owned(),
            cpus: CPUS,
            memory_mib: MEMORY_MIB,
            machine: MachineOptions::default(),
            scratch_limits: limits,
            kernel_arguments: None,
            network: Request::none(),
            input: Input::Null,
            output: Output::Inherited,
            log_limit: LEAST_LIMIT,
            stop_signal: SignalNumber::TERM,
            starter: Starter::User,
            detach_keys: DetachKeys::default(),
            kept: false,
            restart_policy: RestartPolicy::No,
            timeout: None,
            health: None,
            origin: None,
            tell_timings: false,
            keep: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(run(self.hypervisor, &plan, &mut claim, &mut Timings::start()))?;
        Ok(())
    }
}
