//! What a crash left, and its removal.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Registry, StateError, Status, VmName, VmState};
use crate::{
    network::{self, Removal},
    storage::TEMPORARY_PREFIX,
};

/// How long a killed hypervisor may take to give its memory back.
const LONGEST_DEATH: Duration = Duration::from_secs(10);

/// Something that a crash left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Garbage {
    /// A VM whose owner is dead: nothing of it is to stay.
    Vm(VmName),
    /// A VM whose owner is dead: record and log stay.
    Ended(VmName),
    /// A directory or a file that belongs to no VM.
    Path(PathBuf),
    /// The network of a VM that is not on record here: the name of its link and table.
    Network(String),
}

impl Registry {
    /// Does for dead owners what they did not: removes what they left, or keeps record and log as
    /// of a VM that has exited; what that was.
    ///
    /// # Errors
    /// Where the directory cannot be read or locked. What cannot be removed is
    /// logged and left for the next time.
    pub fn collect_garbage(&self) -> Result<Vec<Garbage>, StateError> {
        // Nothing to lock for where there is nothing at all: a reader of an empty directory writes nothing.
        if !self.data.state().exists() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        self.collect_locked()
    }

    pub(super) fn collect_locked(&self) -> Result<Vec<Garbage>, StateError> {
        let mut collected = Vec::new();
        for mut state in self.read_all()?.into_iter().filter(is_dead) {
            tracing::debug!(vm = %state.name, id = %state.id, "collecting what a dead process left");
            // The owner is dying at least, if not gone.
            for process in state.hypervisor_process.iter().chain([&state.owner]) {
                if let Err(error) = process.kill(LONGEST_DEATH) {
                    tracing::warn!(%error, pid = process.pid, "what is left of a VM cannot be killed");
                }
            }
            collected.push(garbage(&state));
            if let Some(network) = &state.network {
                network::collect(network);
            }
            let old = state.clone();
            if state.exit_code.is_none() {
                state.error = Some(format!("its fcvm process (PID {}) died", state.owner.pid));
            }
            if state.is_kept() {
                if let Err(error) = self.keep(&old, &mut state) {
                    tracing::warn!(%error, vm = %state.name, "left for the next clean-up");
                }
                continue;
            }
            match self.remove_dead(&old, &mut state) {
                Ok(()) => {}
                Err(error) => tracing::warn!(%error, vm = %state.name, "left for the next clean-up"),
            }
        }
        for path in self.temporary_files() {
            if let Err(error) = fs_err::remove_file(path) {
                tracing::warn!(%error, "left for the next clean-up");
            }
        }
        Ok(collected)
    }

    fn remove_dead(&self, old: &VmState, state: &mut VmState) -> io::Result<()> {
        state.end();
        self.tell(Some(old), Some(state));
        self.remove(state)
    }

    /// All that is not needed, also what no record names any more.
    ///
    /// # Errors
    /// Where a directory cannot be read or locked.
    pub fn garbage(&self) -> Result<Vec<Garbage>, StateError> {
        if !self.data.state().exists() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        let mut all: Vec<_> = self.read_all()?.iter().filter(|vm| is_dead(vm)).map(garbage).collect();
        all.extend(self.temporary_files().chain(self.orphans()?).map(Garbage::Path));
        all.extend(network::orphans(Removal::Dry).into_iter().map(Garbage::Network));
        Ok(all)
    }

    /// Removes all that is not needed; what that was.
    ///
    /// # Errors
    /// Where a directory cannot be read or locked. What cannot be removed is logged, and left out.
    pub fn remove_garbage(&self) -> Result<Vec<Garbage>, StateError> {
        let mut all = self.collect_garbage()?;
        if !self.data.state().exists() {
            return Ok(all);
        }
        let _lock = self.lock()?;
        for path in self.orphans()? {
            match fs_err::remove_dir_all(&path) {
                Ok(()) => all.push(Garbage::Path(path)),
                Err(error) => tracing::warn!(%error, "left for the next clean-up"),
            }
        }
        all.extend(network::orphans(Removal::Real).into_iter().map(Garbage::Network));
        Ok(all)
    }

    /// Files that a writer left who was killed: whoever writes holds the lock.
    fn temporary_files(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(self.data.state()).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()))
            .map(|entry| entry.path())
    }

    /// Directories of VMs that have no record: the record comes first and goes last, so that this
    /// takes a user who removed it. A record that cannot be read is one.
    fn orphans(&self) -> Result<Vec<PathBuf>, StateError> {
        let recorded: Vec<_> = names(&self.states())?
            .into_iter()
            .filter_map(|name| Some(name.strip_suffix(".json")?.to_owned()))
            .collect();
        // Only what has the form of ours is. Sockets are not looked for: those of other data
        // directories may lie beside them.
        let ours =
            |name: &String| name.bytes().all(|byte| byte.is_ascii_hexdigit()) && !recorded.contains(name);
        let orphans = names(&self.data.vms())?.into_iter().filter(ours);
        Ok(orphans.map(|name| self.data.vms().join(name)).collect())
    }
}

fn is_dead(state: &VmState) -> bool {
    state.status != Status::Exited && !state.owner.is_alive()
}

fn garbage(state: &VmState) -> Garbage {
    let name = state.name.clone();
    if state.is_kept() { Garbage::Ended(name) } else { Garbage::Vm(name) }
}

fn names(directory: &Path) -> Result<Vec<String>, StateError> {
    let list = |source| StateError::List { path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(list)?,
    };
    let name = |entry: io::Result<fs::DirEntry>| Ok(entry.map_err(list)?.file_name().into_string().ok());
    entries.filter_map(|entry| name(entry).transpose()).collect()
}
