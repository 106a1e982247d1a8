//! A VM of this process.

use std::path::{Path, PathBuf};

use super::{Registry, StateError, VmName, VmState};

/// A recorded VM of this process. Dropped, everything of it is removed.
#[derive(Debug)]
pub struct Claim {
    registry: Registry,
    state: VmState,
    directory: PathBuf,
    runtime: PathBuf,
    /// Whether record and log outlive this.
    kept: bool,
}

impl Claim {
    /// Records a VM and makes its directories; to be called with the lock held.
    pub(super) fn make(registry: &Registry, state: VmState) -> Result<Self, StateError> {
        // From here on dropping the claim removes whatever was made.
        let claim = Self {
            registry: registry.clone(),
            directory: registry.directory(&state.id),
            runtime: registry.runtime_dir(&state.id),
            state,
            kept: false,
        };
        registry.write(None, &claim.state)?;
        crate::failpoint::reach("recorded");
        fs_err::create_dir_all(&claim.directory)
            .map_err(|source| StateError::Create { path: claim.directory.clone(), source })?;
        crate::failpoint::reach("directory-made");
        registry.create_runtime_dir(&claim.state.id)?;
        crate::failpoint::reach("claimed");
        Ok(claim)
    }

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
        let old = self.state.clone();
        change(&mut self.state);
        self.registry.write(Some(&old), &self.state)
    }

    /// Gives the VM another name.
    ///
    /// # Errors
    /// Where it is taken, or the record cannot be written.
    pub fn rename(&mut self, name: &VmName) -> Result<(), StateError> {
        self.registry.rename(&mut self.state, name)
    }

    /// The VM has ended, like this: its record and log are kept where they are to be, the rest is removed.
    ///
    /// # Errors
    /// Where the record cannot be written; the next command then tries again.
    pub fn finish(mut self, exit_code: Option<u8>, error: Option<String>) -> Result<(), StateError> {
        let old = self.state.clone();
        (self.state.exit_code, self.state.error) = (exit_code, error);
        let _lock = self.registry.lock()?;
        if self.state.is_kept() {
            self.kept = true;
            crate::failpoint::reach("keeping");
            return self.registry.keep(&old, &mut self.state);
        }
        self.state.end();
        self.registry.tell(Some(&old), Some(&self.state));
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = self.registry.remove(&self.state)
        {
            tracing::warn!(%error, vm = %self.state.id, "left for the next clean-up");
        }
    }
}
