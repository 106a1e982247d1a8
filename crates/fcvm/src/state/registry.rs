//! All VMs of a data directory.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{FORMAT, HealthStatus, ProcessType, RuntimeDir, StateError, Status, VmId, VmName, VmState};
use crate::{
    process::Owner,
    storage::{AtomicFile, DataDir, Lock, TEMPORARY_PREFIX},
};
use jiff::Timestamp;

/// How long a killed hypervisor may take to give its memory back.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

/// The state files of a data directory.
#[derive(Debug, Clone)]
pub struct Registry {
    data: DataDir,
    runtime: RuntimeDir,
}

/// What a new VM is to be.
#[derive(Debug, Clone)]
pub struct NewVm {
    /// Its name; generated where absent.
    pub name: Option<VmName>,
    /// The hypervisor's name.
    pub hypervisor: String,
    /// The image as the user wrote it.
    pub image: String,
    /// The command.
    pub command: Vec<String>,
    /// Virtual CPUs.
    pub cpus: u8,
    /// Memory in MiB.
    pub memory_mib: u32,
}

/// A recorded VM of this process. Dropped, everything of it is removed.
#[derive(Debug)]
pub struct Claim {
    registry: Registry,
    state: VmState,
    directory: PathBuf,
    runtime: PathBuf,
}

impl Registry {
    /// The VMs of a data directory.
    #[must_use]
    pub fn new(data: &DataDir, runtime: RuntimeDir) -> Self {
        Self { data: data.clone(), runtime }
    }

    /// The VMs whose owners live, by name. Files that cannot be understood are
    /// left alone, with a warning.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn list(&self) -> Result<Vec<VmState>, StateError> {
        let mut vms: Vec<_> = self.read_all()?.into_iter().filter(|state| state.owner.is_alive()).collect();
        vms.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(vms)
    }

    /// Removes what dead owners left; how many VMs that were.
    ///
    /// # Errors
    /// Where the directory cannot be read or locked. What cannot be removed is
    /// logged and left for the next time.
    pub fn collect_garbage(&self) -> Result<usize, StateError> {
        // Nothing to lock for where there is nothing at all: a reader of an empty directory writes nothing.
        if !self.data.state().exists() {
            return Ok(0);
        }
        let _lock = self.lock()?;
        self.collect_locked()
    }

    fn collect_locked(&self) -> Result<usize, StateError> {
        let mut collected = 0;
        for state in self.read_all()?.into_iter().filter(|state| !state.owner.is_alive()) {
            tracing::debug!(vm = %state.name, id = %state.id, "collecting what a dead process left");
            if let Some(hypervisor) = &state.hypervisor_process
                && let Err(error) = hypervisor.kill(LONGEST_DEATH)
            {
                tracing::warn!(%error, pid = hypervisor.pid, "an orphaned hypervisor cannot be killed");
            }
            self.remove(&state.id);
            collected += 1;
        }
        self.remove_temporary_files();
        Ok(collected)
    }

    /// Files that a writer left who was killed: whoever writes holds the lock.
    fn remove_temporary_files(&self) {
        for entry in fs::read_dir(self.data.state()).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes())
                && let Err(error) = fs_err::remove_file(entry.path())
            {
                tracing::warn!(%error, "left for the next clean-up");
            }
        }
    }

    /// Records a new VM under its name, and makes its directories.
    ///
    /// # Errors
    /// Where the name is taken or something cannot be written.
    pub fn claim(&self, vm: NewVm) -> Result<Claim, StateError> {
        let _lock = self.lock()?;
        self.collect_locked()?;
        let others = self.read_all()?;
        let id = random_id()?;
        let holder = |name: &VmName| others.iter().find(|other| other.name == *name);
        let name = match vm.name {
            Some(name) => match holder(&name) {
                Some(other) => return Err(StateError::NameTaken { name, id: other.id.short().to_owned() }),
                None => name,
            },
            None => Some(VmName::generate(&id))
                .filter(|name| holder(name).is_none())
                .unwrap_or_else(|| VmName::long(&id)),
        };
        let state = VmState {
            format: FORMAT,
            id,
            name,
            process_type: ProcessType::Vm,
            owner: Owner::current().map_err(StateError::Identify)?,
            hypervisor_process: None,
            hypervisor: vm.hypervisor,
            image: vm.image,
            image_digest: None,
            command: vm.command,
            status: Status::Created,
            health_status: HealthStatus::Starting,
            exit_code: None,
            created: Timestamp::now(),
            started: None,
            cpus: vm.cpus,
            memory_mib: vm.memory_mib,
            serve_pid: None,
            snapshot_name: None,
            ports: Vec::new(),
        };
        // From here on dropping the claim removes whatever was made.
        let claim = Claim {
            registry: self.clone(),
            directory: self.data.vms().join(state.id.as_str()),
            runtime: self.runtime.of(&state.id),
            state,
        };
        claim.write()?;
        fs_err::create_dir_all(&claim.directory)
            .map_err(|source| StateError::Create { path: claim.directory.clone(), source })?;
        self.runtime.create(&claim.state.id)?;
        Ok(claim)
    }

    fn lock(&self) -> Result<Lock, StateError> {
        Ok(Lock::acquire(&self.data.state().join("lock"), || ())?)
    }

    fn path(&self, id: &VmId) -> PathBuf {
        self.data.state().join(format!("{id}.json"))
    }

    fn read_all(&self) -> Result<Vec<VmState>, StateError> {
        let directory = self.data.state();
        let list = |source| StateError::List { path: directory.clone(), source };
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(list)?,
        };
        let mut vms = Vec::new();
        for entry in entries {
            let path = entry.map_err(list)?.path();
            if path.extension() == Some(OsStr::new("json")) {
                vms.extend(read(&path));
            }
        }
        Ok(vms)
    }

    /// Removes everything of a VM, its state file last and only after the rest.
    fn remove(&self, id: &VmId) {
        let directories = [self.data.vms().join(id.as_str()), self.runtime.of(id)];
        let mut clean = true;
        for directory in directories {
            if let Err(error) = fs_err::remove_dir_all(directory)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, vm = %id, "left for the next clean-up");
                clean = false;
            }
        }
        if clean
            && let Err(error) = fs_err::remove_file(self.path(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, vm = %id, "left for the next clean-up");
        }
    }
}

/// A state file's content; `None` with a warning where it is not ours to understand.
fn read(path: &Path) -> Option<VmState> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        // Removed since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "unreadable VM state");
            return None;
        }
    };
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    match serde_json::from_slice::<Version>(&bytes) {
        Ok(Version { format }) if format > FORMAT => {
            tracing::warn!(path = %path.display(), format, supported = FORMAT, "VM state of a newer fcvm");
            return None;
        }
        _ => {}
    }
    match serde_json::from_slice(&bytes) {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "damaged VM state");
            None
        }
    }
}

fn random_id() -> Result<VmId, StateError> {
    let mut bytes = [0; 16];
    crate::random::fill(&mut bytes).map_err(StateError::Identify)?;
    Ok(VmId::from_bytes(bytes))
}

impl Claim {
    /// The VM as recorded.
    #[must_use]
    pub fn state(&self) -> &VmState {
        &self.state
    }

    /// The VM's own files.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The VM's sockets.
    #[must_use]
    pub fn runtime_dir(&self) -> &Path {
        &self.runtime
    }

    /// Changes the record.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn update(&mut self, change: impl FnOnce(&mut VmState)) -> Result<(), StateError> {
        let _lock = self.registry.lock()?;
        change(&mut self.state);
        self.write()
    }

    /// Writes the record; to be called with the lock held.
    fn write(&self) -> Result<(), StateError> {
        let path = self.registry.path(&self.state.id);
        let bytes = serde_json::to_vec_pretty(&self.state).expect("a state has only plain fields");
        AtomicFile::write_volatile(&path, &bytes).map_err(|source| StateError::Write { path, source })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.registry.remove(&self.state.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(root: &Path) -> Registry {
        let data = DataDir::open(Some(root.join("data"))).unwrap();
        Registry::new(&data, RuntimeDir::at(root.join("run")))
    }

    fn vm(name: Option<&str>) -> NewVm {
        NewVm {
            name: name.map(|name| name.parse().unwrap()),
            hypervisor: "qemu".into(),
            image: "hello".into(),
            command: vec![],
            cpus: 1,
            memory_mib: 256,
        }
    }

    #[test]
    fn names_are_unique_among_the_living_and_free_afterwards() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let first = registry.claim(vm(Some("web"))).unwrap();
        assert!(matches!(registry.claim(vm(Some("web"))), Err(StateError::NameTaken { .. })));
        assert_eq!(registry.list().unwrap(), [first.state().clone()]);
        let (directory, sockets) = (first.directory().to_owned(), first.runtime_dir().to_owned());
        assert!(directory.is_dir() && sockets.is_dir());
        drop(first);
        assert!(!directory.exists() && !sockets.exists());
        assert!(registry.list().unwrap().is_empty());
        registry.claim(vm(Some("web"))).unwrap();
    }

    #[test]
    fn a_writer_that_was_killed_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let claim = registry.claim(vm(None)).unwrap();
        let left = registry.data.state().join(format!("{TEMPORARY_PREFIX}abc"));
        fs::write(&left, b"{").unwrap();
        assert_eq!(registry.collect_garbage().unwrap(), 0);
        assert!(!left.exists());
        assert_eq!(registry.list().unwrap(), [claim.state().clone()]);
    }

    #[test]
    fn what_a_dead_owner_left_is_collected() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let mut claim = registry.claim(vm(Some("web"))).unwrap();
        let mut hypervisor = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let orphan = Owner::of(hypervisor.id().cast_signed()).unwrap();
        claim
            .update(|state| {
                state.owner.start_time += 1;
                state.hypervisor_process = orphan;
            })
            .unwrap();
        let (directory, sockets) = (claim.directory().to_owned(), claim.runtime_dir().to_owned());
        std::mem::forget(claim);
        assert!(registry.list().unwrap().is_empty());
        assert_eq!(registry.collect_garbage().unwrap(), 1);
        assert!(!directory.exists() && !sockets.exists());
        assert!(!hypervisor.wait().unwrap().success(), "the orphan was killed");
        assert_eq!(registry.collect_garbage().unwrap(), 0);
    }

    #[test]
    fn files_that_cannot_be_understood_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let state = registry.data.state();
        fs::create_dir_all(&state).unwrap();
        let odd: [(&str, &[u8]); 4] =
            [("a.json", b""), ("b.json", b"[]"), ("c.json", b"{\"format\":999}"), ("d.json", b"\xff")];
        for (name, bytes) in odd {
            fs::write(state.join(name), bytes).unwrap();
        }
        assert_eq!(registry.collect_garbage().unwrap(), 0);
        assert!(registry.list().unwrap().is_empty());
        for (name, bytes) in odd {
            assert_eq!(fs::read(state.join(name)).unwrap(), bytes);
        }
    }

    #[test]
    fn generated_names_do_not_collide() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let claims: Vec<_> = (0..100).map(|_| registry.claim(vm(None)).unwrap()).collect();
        let names: std::collections::HashSet<_> =
            claims.iter().map(|claim| claim.state().name.clone()).collect();
        assert_eq!(names.len(), 100);
    }
}
