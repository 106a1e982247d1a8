//! Capabilities: what root is divided into.

use rustix::{
    io::Errno,
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities,
    },
};

use super::{Applied, ConfineError};
use crate::passthrough::{Access, Ids, Options};

/// What it takes to look at everybody's files.
const READING: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// What it takes to do with files whatever root may. Not `SYS_ADMIN`: without it the client has no attributes
/// in `trusted.`, which belong to the host.
fn changing() -> CapabilitySet {
    READING
        | CapabilitySet::CHOWN
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::FOWNER
        | CapabilitySet::FSETID
        | CapabilitySet::SETUID
        | CapabilitySet::SETGID
        | CapabilitySet::MKNOD
        | CapabilitySet::SETFCAP
        | CapabilitySet::LINUX_IMMUTABLE
}

fn needed(options: &Options) -> CapabilitySet {
    match (options.ids, options.access) {
        // All happens as the user that the server is.
        (Ids::Squash { .. }, _) => CapabilitySet::empty(),
        (Ids::Same, Access::ReadOnly) => READING,
        (Ids::Same, Access::ReadWrite) => changing(),
    }
}

/// Leaves what the options make needed, of what there was.
pub(super) fn drop_all_but_needed(options: &Options) -> Result<Applied, ConfineError> {
    let needed = needed(options);
    let drop = || {
        let had = capabilities(None)?;
        clear_ambient_capability_set()?;
        if had.effective.contains(CapabilitySet::SETPCAP) {
            for capability in CapabilitySet::all().difference(needed).iter() {
                match remove_capability_from_bounding_set(capability) {
                    // Newer than this kernel.
                    Ok(()) | Err(Errno::INVAL) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
        let left = had.permitted & needed;
        set_capabilities(
            None,
            CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() },
        )
    };
    drop().map(|()| Applied::Whole).map_err(|errno| ConfineError::Privileges(errno.into()))
}
