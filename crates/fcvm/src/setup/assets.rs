//! What a VM boots from, found in the data directory.
//!
//! Every asset is named by the content of what it was made from, so a changed
//! plan, agent or fcvm finds nothing under the new name instead of the old thing.
//! What takes a network or minutes is made by [`install`](super::install) only.
//! What takes milliseconds is made on the spot, under a lock of its own: the
//! initrd (after an upgrade of the agent, say), and a kernel given as a file.

use std::path::{Path, PathBuf};

use super::{
    SetupError, agent,
    error::FIND_KERNEL,
    initrd,
    kernel::{self, Kernel},
    manifest::Manifest,
    plan::{KernelPlan, KernelSource, Plan},
};
use crate::{
    hash::Digest,
    snapshot::{Asset, MachineRecord},
    storage::{DataDir, Lock},
};

/// What a VM boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    /// The kernel image: an ELF `vmlinux` on x86-64, an `Image` on aarch64.
    pub kernel: PathBuf,
    /// Its digest.
    pub kernel_digest: Digest,
    /// Its release, as `uname -r` prints it.
    pub kernel_release: String,
    /// The initial RAM file system, with the agent.
    pub initrd: PathBuf,
    /// The digest of the agent in it.
    pub agent_digest: Digest,
    /// The base disk: ext4, to be used read-only.
    pub base: PathBuf,
    /// Its digest.
    pub base_digest: Digest,
    /// An empty ext4, sparse: to be copied for each VM.
    pub scratch_template: PathBuf,
}

/// What the user chose instead of the defaults.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// The plan file.
    pub plan: Option<PathBuf>,
    /// The agent.
    pub agent: Option<PathBuf>,
    /// A kernel file. It brings no modules: all that a guest needs must be built in.
    pub kernel: Option<PathBuf>,
}

impl Overrides {
    /// The plan in force, with the kernel that was given.
    ///
    /// # Errors
    /// Where the plan cannot be read or is not valid, or the kernel does not exist.
    pub fn plan(&self, data: &DataDir) -> Result<Plan, SetupError> {
        let mut plan = Plan::load(self.plan.as_deref(), data)?;
        if let Some(kernel) = &self.kernel {
            let path = std::fs::canonicalize(kernel)
                .map_err(|source| SetupError::io(FIND_KERNEL, kernel, source))?;
            plan.kernel = KernelPlan { path: Some(path), ..KernelPlan::default() };
        }
        Ok(plan)
    }
}

impl Assets {
    /// Finds everything, checked by size and time (by content where the time differs).
    ///
    /// # Errors
    /// [`SetupError::Missing`] and [`SetupError::Corrupt`] where set-up must run
    /// ([`SetupError::is_mended_by_setup`]); otherwise what is wrong with plan, agent or kernel.
    pub fn locate(data: &DataDir, overrides: &Overrides) -> Result<Self, SetupError> {
        Self::locate_for(&overrides.plan(data)?, data, overrides)
    }

    pub(super) fn locate_for(plan: &Plan, data: &DataDir, overrides: &Overrides) -> Result<Self, SetupError> {
        let base = base_path(plan, data);
        let base_digest = verify_base(&base)?;
        let scratch_template = scratch_path(plan, data);
        Manifest::verify(&scratch_template)?;
        let kernel = find_kernel(plan, data)?;
        let agent = agent::find(overrides.agent.as_deref())?;
        let agent_digest = agent::digest(&agent, data)?;
        let initrd = find_initrd(&kernel, &agent, agent_digest, data)?;
        Ok(Self {
            kernel: kernel.image(),
            kernel_digest: kernel.digest,
            kernel_release: kernel.release,
            initrd,
            agent_digest,
            base,
            base_digest,
            scratch_template,
        })
    }

    /// Those of a machine that was made before, where they are still what they were; with the disk that is to
    /// be copied.
    ///
    /// # Errors
    /// Where one is gone or another.
    pub fn again(machine: &MachineRecord, data: &DataDir, scratch: PathBuf) -> Result<Self, SetupError> {
        // What is in it has been running since.
        let initrd = data.root().join(&machine.initrd.path);
        if !initrd.exists() {
            return Err(SetupError::Missing { path: initrd });
        }
        Self::of_before(machine, data, scratch, initrd)
    }

    /// The same, to boot once more: with the agent of now.
    ///
    /// # Errors
    /// As of [`again`](Self::again), and where there is no agent.
    pub fn anew(
        machine: &MachineRecord,
        agent: Option<&Path>,
        data: &DataDir,
        scratch: PathBuf,
    ) -> Result<Self, SetupError> {
        let before = Self::of_before(machine, data, scratch, PathBuf::new())?;
        let directory = before.kernel.parent().unwrap_or(Path::new("/")).to_owned();
        let kernel = Kernel::in_directory(directory)?;
        let agent = agent::find(agent)?;
        let agent_digest = agent::digest(&agent, data)?;
        let initrd = find_initrd(&kernel, &agent, agent_digest, data)?;
        Ok(Self { kernel_release: kernel.release, initrd, agent_digest, ..before })
    }

    fn of_before(
        machine: &MachineRecord,
        data: &DataDir,
        scratch: PathBuf,
        initrd: PathBuf,
    ) -> Result<Self, SetupError> {
        let path = |asset: &Asset| data.root().join(&asset.path);
        for asset in [&machine.kernel, &machine.base] {
            let path = path(asset);
            if Manifest::verify(&path)? != Some(asset.sha256) {
                return Err(SetupError::Corrupt { path });
            }
        }
        Ok(Self {
            kernel: path(&machine.kernel),
            kernel_digest: machine.kernel.sha256,
            kernel_release: String::new(),
            initrd,
            agent_digest: machine.initrd.sha256,
            base: path(&machine.base),
            base_digest: machine.base.sha256,
            scratch_template: scratch,
        })
    }

    /// The files, with what they are.
    #[must_use]
    pub fn files(&self) -> [(&'static str, &Path); 4] {
        [
            ("kernel", &self.kernel),
            ("initrd", &self.initrd),
            ("base disk", &self.base),
            ("scratch template", &self.scratch_template),
        ]
    }
}

pub(super) fn base_path(plan: &Plan, data: &DataDir) -> PathBuf {
    data.rootfs().join(format!("{}.ext4", plan.base_key()))
}

pub(super) fn scratch_path(plan: &Plan, data: &DataDir) -> PathBuf {
    data.rootfs().join(format!("{}.ext4", plan.scratch_name()))
}

pub(super) fn verify_base(path: &Path) -> Result<Digest, SetupError> {
    Manifest::verify(path)?.ok_or_else(|| SetupError::Corrupt { path: path.to_owned() })
}

/// The kernel of the plan; one that is a file of this machine is taken in on the spot.
pub(super) fn find_kernel(plan: &Plan, data: &DataDir) -> Result<Kernel, SetupError> {
    let key = plan.kernel_key()?;
    let found = Kernel::locate(data, &key);
    match (&found, plan.kernel_source()?) {
        (Err(error), KernelSource::Path(path)) if error.is_mended_by_setup() => {
            let _lock = derive_lock(data)?;
            if Kernel::locate(data, &key).is_err() {
                kernel::make_from_file(&path, &key, data)?;
            }
            Kernel::locate(data, &key)
        }
        _ => found,
    }
}

fn find_initrd(
    kernel: &Kernel,
    agent: &Path,
    agent_digest: Digest,
    data: &DataDir,
) -> Result<PathBuf, SetupError> {
    let path = initrd::path(kernel, agent_digest, data)?;
    match Manifest::verify(&path) {
        Err(error) if error.is_mended_by_setup() => {
            let _lock = derive_lock(data)?;
            if Manifest::verify(&path).is_err() {
                initrd::make(kernel, agent, &path)?;
            }
        }
        found => {
            found?;
        }
    }
    Ok(path)
}

/// Held while something is made on the spot, and while leftovers are removed.
pub(super) fn derive_lock(data: &DataDir) -> Result<Lock, SetupError> {
    Ok(Lock::acquire(&data.state().join("derive.lock"), || {})?)
}
