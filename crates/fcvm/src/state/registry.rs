//! All VMs of a data directory.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{
    Claim, FORMAT, HealthStatus, MountRecord, ProcessType, RestartPolicy, RuntimeDir, StateError, Status,
    VmId, VmName, VmState,
};
use crate::{
    output::sanitize,
    process::{Owner, cgroup},
    snapshot::SnapshotTag,
    storage::{AtomicFile, DataDir, Lock},
};
use jiff::Timestamp;
use rustix::{fs::OFlags, process::geteuid};

/// Longest state file, in bytes: a command line has 2 MiB at most, and what it is made of may be
/// written as six bytes each.
const MAX_BYTES: u64 = 16 << 20;

/// The container's log and, with more behind the name, the older part of it.
pub const LOG_FILE: &str = "container.log";

/// The state files of a data directory.
#[derive(Debug, Clone)]
pub struct Registry {
    pub(super) data: DataDir,
    pub(super) runtime: RuntimeDir,
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
    /// What becomes of it.
    pub life: Life,
    /// What the container has beside its image.
    pub mounts: Vec<MountRecord>,
    /// The user's labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Whether its container runs again.
    pub restart_policy: RestartPolicy,
    /// What kind of process owns it.
    pub process_type: ProcessType,
    /// The snapshot that it goes on from, or that it serves.
    pub snapshot: Option<SnapshotTag>,
    /// Of a clone: who serves its memory, with which it ends.
    pub serve_pid: Option<i32>,
}

/// How a VM lives, and what of it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// In the foreground; nothing stays.
    Foreground,
    /// In the background; record and log stay.
    Detached,
    /// In the background; nothing stays.
    DetachedOnce,
}

impl Registry {
    /// The VMs of a data directory.
    #[must_use]
    pub fn new(data: &DataDir, runtime: RuntimeDir) -> Self {
        Self { data: data.clone(), runtime }
    }

    /// The servers of snapshots that run, by name.
    ///
    /// # Errors
    /// As of [`list_all`](Self::list_all).
    pub fn servers(&self) -> Result<Vec<VmState>, StateError> {
        let mut servers = self.read_all()?;
        servers.retain(|server| server.process_type == ProcessType::Serve && server.is_alive());
        servers.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(servers)
    }

    /// All VMs on record, by name, but for those that are only to be saved. Files that cannot be understood are
    /// left alone, with a warning.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn list_all(&self) -> Result<Vec<VmState>, StateError> {
        let mut vms = self.read_all()?;
        vms.retain(|vm| !matches!(vm.process_type, ProcessType::Serve | ProcessType::Prepare));
        vms.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(vms)
    }

    /// The VMs whose owners live, by name.
    ///
    /// # Errors
    /// As of [`list_all`](Self::list_all).
    pub fn list(&self) -> Result<Vec<VmState>, StateError> {
        let mut vms = self.list_all()?;
        vms.retain(VmState::is_alive);
        Ok(vms)
    }

    /// Records a new VM under its name, and makes its directories.
    ///
    /// # Errors
    /// Where the name is taken or something cannot be written.
    pub fn claim(&self, vm: NewVm) -> Result<Claim, StateError> {
        let _lock = self.lock()?;
        crate::failpoint::reach("locked");
        self.collect_locked()?;
        crate::failpoint::reach("collected");
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
            process_type: vm.process_type,
            owner: Owner::current().map_err(StateError::Identify)?,
            hypervisor_process: None,
            hypervisor: vm.hypervisor,
            image: vm.image,
            image_digest: None,
            command: vm.command,
            status: Status::Created,
            health_status: HealthStatus::Starting,
            health_log: Vec::new(),
            responding: true,
            restart_policy: vm.restart_policy,
            restarts: 0,
            exit_code: None,
            error: None,
            created: Timestamp::now(),
            started: None,
            finished: None,
            detached: vm.life != Life::Foreground,
            remove: vm.life != Life::Detached,
            labels: vm.labels,
            cpus: vm.cpus,
            memory_mib: vm.memory_mib,
            serve_pid: vm.serve_pid,
            snapshot_name: vm.snapshot.map(String::from),
            warm_start: None,
            mounts: vm.mounts,
            network: None,
            ports: Vec::new(),
        };
        Claim::make(self, state)
    }

    /// Refuses the records of another user: whom they name we would end with our rights, and what
    /// we write there the other could not read.
    fn check_user(&self) -> Result<(), StateError> {
        let path = self.data.state();
        match fs::metadata(&path) {
            Ok(found) if found.uid() != geteuid().as_raw() => {
                Err(StateError::OtherUser { path, user: found.uid() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn lock(&self) -> Result<Lock, StateError> {
        self.check_user()?;
        Ok(Lock::acquire(&self.data.state().join("lock"), || ())?)
    }

    pub(super) fn path(&self, id: &VmId) -> PathBuf {
        self.data.state().join(format!("{id}.json"))
    }

    pub(super) fn read_all(&self) -> Result<Vec<VmState>, StateError> {
        let directory = self.data.state();
        let list = |source| StateError::List { path: directory.clone(), source };
        self.check_user()?;
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

    /// Removes a VM that has exited.
    ///
    /// # Errors
    /// Where it is alive, or something of it cannot be removed.
    pub fn remove_exited(&self, vm: &VmState) -> Result<(), StateError> {
        let _lock = self.lock()?;
        match read(&self.path(&vm.id)) {
            None => Ok(()),
            Some(state) if state.is_alive() => {
                Err(StateError::Alive { name: state.name, status: state.status })
            }
            Some(state) => {
                crate::failpoint::reach("rm-locked");
                self.remove(&state).map_err(|source| StateError::Remove { name: state.name, source })
            }
        }
    }

    /// Removes everything of a VM, its state file last and only after the rest.
    pub(super) fn remove(&self, state: &VmState) -> io::Result<()> {
        for directory in [self.directory(&state.id), self.runtime.of(&state.id)] {
            gone(fs_err::remove_dir_all(directory))?;
            crate::failpoint::reach("directory-removed");
        }
        crate::failpoint::reach("directories-removed");
        cgroup::forget(state.id.as_str())?;
        gone(fs_err::remove_file(self.path(&state.id)))?;
        self.tell(Some(state), None);
        Ok(())
    }

    /// Keeps of a VM what is left of one that has exited: its log, and its record with its end.
    pub(super) fn keep(&self, old: &VmState, state: &mut VmState) -> Result<(), StateError> {
        let error = |source| StateError::Remove { name: state.name.clone(), source };
        for entry in fs::read_dir(self.directory(&state.id)).into_iter().flatten() {
            let entry = entry.map_err(error)?;
            if !entry.file_name().as_encoded_bytes().starts_with(LOG_FILE.as_bytes()) {
                let path = entry.path();
                let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
                gone(if is_directory { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) })
                    .map_err(error)?;
            }
        }
        crate::failpoint::reach("files-removed");
        gone(fs_err::remove_dir_all(self.runtime.of(&state.id))).map_err(error)?;
        crate::failpoint::reach("sockets-removed");
        cgroup::forget(state.id.as_str()).map_err(error)?;
        state.end();
        self.write(Some(old), state)?;
        crate::failpoint::reach("record-kept");
        Ok(())
    }

    /// Writes a record in place of the old one; to be called with the lock held.
    pub(super) fn write(&self, old: Option<&VmState>, state: &VmState) -> Result<(), StateError> {
        let path = self.path(&state.id);
        let bytes = serde_json::to_vec_pretty(state).expect("a state has only plain fields");
        AtomicFile::write_volatile(&path, &bytes).map_err(|source| StateError::Write { path, source })?;
        self.tell(old, Some(state));
        Ok(())
    }

    /// The record of a VM as it is now; `None` where there is none.
    #[must_use]
    pub fn get(&self, id: &VmId) -> Option<VmState> {
        read(&self.path(id))
    }

    /// The directory of a VM's own files.
    #[must_use]
    pub fn directory(&self, id: &VmId) -> PathBuf {
        self.data.vms().join(id.as_str())
    }

    /// The directory of a VM's sockets.
    #[must_use]
    pub fn runtime_dir(&self, id: &VmId) -> PathBuf {
        self.runtime.of(id)
    }

    /// The directory of the records.
    pub(super) fn states(&self) -> PathBuf {
        self.data.state()
    }

    /// Makes the directory of a VM's sockets.
    pub(super) fn create_runtime_dir(&self, id: &VmId) -> Result<PathBuf, StateError> {
        self.runtime.create(id)
    }
}

/// What is gone already need not be removed.
pub(super) fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A state file's content; `None` with a warning where it is not ours to understand.
fn read(path: &Path) -> Option<VmState> {
    let shown = || sanitize(&path.display().to_string());
    let bytes = match bytes(path) {
        Ok(bytes) => bytes,
        // Removed since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(path = shown(), %error, "unreadable VM state");
            return None;
        }
    };
    #[derive(serde::Deserialize)]
    struct Version {
        format: u32,
    }
    match serde_json::from_slice::<Version>(&bytes) {
        Ok(Version { format }) if format > FORMAT => {
            tracing::warn!(path = shown(), format, supported = FORMAT, "VM state of a newer fcvm");
            return None;
        }
        _ => {}
    }
    match serde_json::from_slice::<VmState>(&bytes) {
        // Whatever is done to it would be done to another.
        Ok(state) if path.file_stem() != Some(OsStr::new(state.id.as_str())) => {
            tracing::warn!(path = shown(), id = %state.id, "VM state under the name of another");
            None
        }
        Ok(state) => Some(state),
        Err(error) => {
            // It may quote what it found.
            let error = sanitize(&error.to_string());
            tracing::warn!(path = shown(), error, "damaged VM state");
            None
        }
    }
}

/// What is in a file, if it is one, and no longer than a state can be.
fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

fn random_id() -> Result<VmId, StateError> {
    let mut bytes = [0; 16];
    crate::random::fill(&mut bytes).map_err(StateError::Identify)?;
    Ok(VmId::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        state::testing::{registry, vm},
        storage::TEMPORARY_PREFIX,
    };

    fn detached(name: &str, life: Life) -> NewVm {
        NewVm { life, ..vm(Some(name)) }
    }

    /// A VM whose owner died at some point of its life.
    fn dead(registry: &Registry, new: NewVm, change: impl FnOnce(&mut VmState)) -> VmState {
        let mut claim = registry.claim(new).unwrap();
        for file in ["scratch.raw", "console.log", "container.log", "container.log.1"] {
            fs::write(claim.directory().join(file), "x").unwrap();
        }
        claim
            .update(|state| {
                state.owner.start_time += 1;
                change(state);
            })
            .unwrap();
        let state = claim.state().clone();
        std::mem::forget(claim);
        state
    }

    fn files(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn of_a_detached_vm_that_ran_record_and_log_survive_its_owner() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        let started = |state: &mut VmState| state.started = Some(Timestamp::now());
        let vm = dead(&registry, detached("web", Life::Detached), started);
        dead(&registry, detached("never", Life::Detached), |_| ());
        dead(&registry, detached("once", Life::DetachedOnce), started);
        let ended = |state: &mut VmState| {
            started(state);
            (state.status, state.exit_code) = (Status::Stopping, Some(3));
        };
        dead(&registry, detached("ended", Life::Detached), ended);
        // The others went with the claims of those after them.
        assert_eq!(registry.collect_garbage().unwrap().len(), 1);
        assert_eq!(registry.collect_garbage().unwrap(), []);
        let kept = registry.list_all().unwrap();
        let names: Vec<_> = kept.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["ended", "web"]);
        assert_eq!((kept[0].exit_code, &kept[0].error), (Some(3), &None));
        let kept = &kept[1];
        assert_eq!((kept.status, kept.exit_code), (Status::Exited, None));
        assert!(kept.error.as_ref().unwrap().contains("died") && kept.finished.is_some());
        assert_eq!(files(&registry.directory(&vm.id)), ["container.log", "container.log.1"]);
        assert!(!registry.runtime_dir(&vm.id).exists() && registry.list().unwrap().is_empty());

        // Its name stays taken until it is removed.
        assert!(matches!(registry.claim(detached("web", Life::Detached)), Err(StateError::NameTaken { .. })));
        registry.remove_exited(kept).unwrap();
        assert!(!registry.directory(&vm.id).exists());
        registry.claim(detached("web", Life::Detached)).unwrap();
    }

    #[test]
    fn what_ends_is_kept_where_it_is_to_be_and_never_while_it_lives() {
        let root = tempfile::tempdir().unwrap();
        let registry = registry(root.path());
        for (life, kept) in [(Life::Foreground, false), (Life::DetachedOnce, false), (Life::Detached, true)] {
            let mut claim = registry.claim(detached("web", life)).unwrap();
            claim.update(|state| state.started = Some(Timestamp::now())).unwrap();
            let alive = claim.state().clone();
            assert!(matches!(registry.remove_exited(&alive), Err(StateError::Alive { .. })));
            claim.finish(Some(4), None).unwrap();
            let state = registry.get(&alive.id);
            assert_eq!(state.is_some(), kept, "{life:?}");
            if let Some(state) = state {
                assert_eq!((state.status, state.exit_code), (Status::Exited, Some(4)));
                registry.remove_exited(&state).unwrap();
            }
        }
        // One that never ran is no VM.
        registry.claim(detached("web", Life::Detached)).unwrap().finish(Some(127), None).unwrap();
        assert!(registry.list_all().unwrap().is_empty());
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
        assert_eq!(registry.collect_garbage().unwrap(), []);
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
        assert_eq!(registry.collect_garbage().unwrap().len(), 1);
        assert!(!directory.exists() && !sockets.exists());
        assert!(!hypervisor.wait().unwrap().success(), "the orphan was killed");
        assert_eq!(registry.collect_garbage().unwrap(), []);
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
        assert_eq!(registry.collect_garbage().unwrap(), []);
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
