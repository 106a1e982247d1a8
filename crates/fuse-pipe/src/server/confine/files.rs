//! Landlock: which files may be opened, made, moved and removed, whoever one is.

use std::{io, path::Path};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use super::{Applied, ConfineError};
use crate::passthrough::Access;

/// What is asked for of newer kernels; older ones do what they can.
const NEWEST: ABI = ABI::V7;

/// The files beneath `path`, or that file, and nothing else. No network, no other processes.
pub(super) fn confine(path: &Path, access: Access) -> Result<Applied, ConfineError> {
    // Without this right files cannot be moved between directories at all.
    let Ok(ruleset) =
        Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(AccessFs::Refer)
    else {
        return Err(ConfineError::NoLandlock);
    };
    let failed = |error: RulesetError| ConfineError::Landlock(io::Error::other(error));
    let granted: BitFlags<AccessFs> = match access {
        Access::ReadOnly => AccessFs::ReadFile | AccessFs::ReadDir,
        // Nothing is executed, and devices are never opened.
        Access::ReadWrite => AccessFs::from_all(NEWEST) & !(AccessFs::Execute | AccessFs::IoctlDev),
    };
    let beneath = PathFd::new(path).map_err(|error| ConfineError::Landlock(io::Error::other(error)))?;
    let status = ruleset
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|created| created.add_rule(PathBeneath::new(beneath, granted)))
        .and_then(landlock::RulesetCreated::restrict_self)
        .map_err(failed)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(Applied::Whole),
        RulesetStatus::PartiallyEnforced => Ok(Applied::Partly),
        RulesetStatus::NotEnforced => Err(ConfineError::NoLandlock),
    }
}
