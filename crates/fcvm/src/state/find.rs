//! VMs by what users call them.

use super::{Registry, StateError, VmState};

impl Registry {
    /// The VM of a name, an id or the beginning of one.
    ///
    /// # Errors
    /// Where there is none, or there are several.
    pub fn find(&self, text: &str) -> Result<VmState, StateError> {
        let all = self.list_all()?;
        if let Some(named) = all.iter().find(|vm| vm.name.as_str() == text) {
            return Ok(named.clone());
        }
        let mut found = all.into_iter().filter(|vm| !text.is_empty() && vm.id.as_str().starts_with(text));
        match (found.next(), found.next()) {
            (Some(vm), None) => Ok(vm),
            (None, _) => Err(StateError::Unknown { name: text.to_owned() }),
            (Some(first), Some(second)) => {
                let ids: Vec<_> =
                    [first, second].into_iter().chain(found).map(|vm| vm.id.short().to_owned()).collect();
                Err(StateError::Ambiguous { prefix: text.to_owned(), ids: ids.join(", ") })
            }
        }
    }

    /// The VM whose fcvm process has this PID.
    ///
    /// # Errors
    /// Where there is none.
    pub fn find_process(&self, pid: i32) -> Result<VmState, StateError> {
        let found = self.list()?.into_iter().find(|vm| vm.owner.pid == pid);
        found.ok_or(StateError::NoProcess { pid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::testing;

    #[test]
    fn names_come_first_and_ids_may_be_cut() {
        let root = tempfile::tempdir().unwrap();
        let registry = testing::registry(root.path());
        let claim = |name: &str| registry.claim(testing::vm(Some(name))).unwrap();
        let web = claim("web");
        let id = web.state().id.as_str().to_owned();
        for text in ["web", &id, &id[..12], &id[..7]] {
            assert_eq!(registry.find(text).unwrap().id.as_str(), id, "{text}");
        }
        for text in ["", "we", "xyz", "WEB", "../web"] {
            assert!(matches!(registry.find(text), Err(StateError::Unknown { .. })), "{text}");
        }
        // Of 17 ids two begin with the same digit.
        let more: Vec<_> = (0..16).map(|number| claim(&format!("vm-{number}"))).collect();
        let digit = |id: &str| id[..1].to_owned();
        let digits: Vec<_> = more.iter().chain([&web]).map(|vm| digit(vm.state().id.as_str())).collect();
        let twice = digits.iter().find(|one| digits.iter().filter(|other| other == one).count() > 1).unwrap();
        assert!(matches!(registry.find(twice), Err(StateError::Ambiguous { .. })));
        // A name that looks like the beginning of an id.
        let named = claim(&id[..4]);
        assert_eq!(registry.find(&id[..4]).unwrap().id, named.state().id);
    }
}
