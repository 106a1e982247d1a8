//! Other names for VMs.

use super::{Registry, StateError, VmId, VmName, VmState};

impl Registry {
    /// Gives a VM another name. Of one that lives, only its owner may do that.
    ///
    /// # Errors
    /// Where it is taken, or the record cannot be written.
    pub(super) fn rename(&self, state: &mut VmState, name: &VmName) -> Result<(), StateError> {
        let _lock = self.lock()?;
        self.free(name, &state.id)?;
        let old = state.clone();
        state.name = name.clone();
        self.write(Some(&old), state).inspect_err(|_| state.name = old.name)
    }

    /// Gives a VM that has exited another name.
    ///
    /// # Errors
    /// Where it lives or the name is taken, or the record cannot be written.
    pub fn rename_exited(&self, vm: &VmState, name: &VmName) -> Result<(), StateError> {
        let Some(mut state) = self.get(&vm.id) else {
            return Err(StateError::Unknown { name: vm.name.to_string() });
        };
        if state.is_alive() {
            return Err(StateError::Alive { name: state.name, status: state.status });
        }
        self.rename(&mut state, name)
    }

    /// Insists that no other VM has the name; to be called with the lock held.
    fn free(&self, name: &VmName, id: &VmId) -> Result<(), StateError> {
        match self.read_all()?.into_iter().find(|other| other.name == *name && other.id != *id) {
            Some(other) => Err(StateError::NameTaken { name: name.clone(), id: other.id.short().to_owned() }),
            None => Ok(()),
        }
    }
}
