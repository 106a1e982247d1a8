//! Namespaces that were made before the processes which are to be in them.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    process::Command,
    sync::Arc,
};

use rustix::{
    io::Errno,
    process::{getppid, parent_process_death_signal, set_parent_process_death_signal},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::sys;

/// A network namespace, and the user namespace that it belongs to where that is not this process's own.
#[derive(Debug)]
pub struct Namespaces {
    /// Of an ordinary user, who may join the other only from here.
    pub user: Option<OwnedFd>,
    /// The network's.
    pub network: OwnedFd,
}

impl Namespaces {
    /// Has `command` start in them. To be called after [`die_with_parent`](super::die_with_parent). A program
    /// that does not start because they cannot be joined fails with the kernel's error for that.
    pub fn join(self: &Arc<Self>, command: &mut Command) {
        sys::join(command, Arc::clone(self));
    }

    /// Moves this process, which has one thread and will be another program, into them: system calls only.
    ///
    /// # Errors
    /// The kernel's; that of a broken pipe where the parent has died.
    pub(super) fn enter(&self) -> Result<(), Errno> {
        let (parent, signal) = (getppid(), parent_process_death_signal()?);
        if let Some(user) = &self.user {
            move_into_link_name_space(user.as_fd(), Some(LinkNameSpaceType::User))?;
        }
        move_into_link_name_space(self.network.as_fd(), Some(LinkNameSpaceType::Network))?;
        // Who becomes another in a user namespace loses what was promised about the parent's death.
        set_parent_process_death_signal(signal)?;
        if getppid() == parent { Ok(()) } else { Err(Errno::PIPE) }
    }
}

#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
