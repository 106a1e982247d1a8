//! The guest binary on the host: where it is, and whether a guest can run it.

use std::{
    env,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{SetupError, manifest::Stamp, vmlinux::Machine};
use crate::{
    elf::{is_dynamic, u16_at},
    hash::Digest,
    storage::{AtomicFile, DataDir},
};

const NAME: &str = "fc-agent";

/// The agent given, or the one installed beside this program.
///
/// # Errors
/// [`SetupError::NoAgent`] where there is none.
pub fn find(given: Option<&Path>) -> Result<PathBuf, SetupError> {
    let candidates = match given {
        Some(path) => vec![path.to_owned()],
        None => installed_beside(env::current_exe().ok().as_deref().and_then(Path::parent)),
    };
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => fs_err::canonicalize(path).map_err(|source| SetupError::io("find", path, source)),
        None => Err(SetupError::NoAgent { looked: candidates }),
    }
}

fn installed_beside(directory: Option<&Path>) -> Vec<PathBuf> {
    directory.into_iter().flat_map(|dir| [dir.join("../libexec/fcvm").join(NAME), dir.join(NAME)]).collect()
}

/// What was found out about an agent, kept in the cache.
#[derive(Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    sha256: Digest,
}

/// The digest of the agent. Hashing it costs some milliseconds, so the result is
/// remembered in the cache for as long as size and time stay the same.
///
/// # Errors
/// Where it cannot be read, or no guest could run it.
pub fn digest(agent: &Path, data: &DataDir) -> Result<Digest, SetupError> {
    let name = format!("agent-{}.json", Digest::of(agent.as_os_str().as_bytes()).short());
    let cached = data.cache().join(name);
    let stamp = Stamp::of_path(agent).map_err(|source| SetupError::io("read", agent, source))?;
    let known = std::fs::read(&cached).ok().and_then(|text| serde_json::from_slice::<Known>(&text).ok());
    if let Some(known) = known.filter(|known| known.stamp == stamp) {
        return Ok(known.sha256);
    }
    let sha256 = Digest::of(&read(agent)?);
    let remember = || AtomicFile::write(&cached, &serde_json::to_vec(&Known { stamp, sha256 })?);
    if let Err(error) = remember() {
        tracing::debug!(%error, "digest of the agent not remembered");
    }
    Ok(sha256)
}

/// The agent's bytes.
///
/// # Errors
/// Where it cannot be read, or no guest could run it.
pub fn read(agent: &Path) -> Result<Vec<u8>, SetupError> {
    let bytes = fs_err::read(agent).map_err(|source| SetupError::io("read", agent, source))?;
    match unfit(&bytes, Machine::HOST) {
        None => Ok(bytes),
        Some(why) => Err(SetupError::UnfitAgent { path: agent.to_owned(), why }),
    }
}

/// Why a guest cannot run this as its first process; nothing where it can.
fn unfit(bytes: &[u8], machine: Machine) -> Option<&'static str> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return Some("it is no 64-bit ELF program");
    }
    if u16_at(bytes, 0x12) != Some(machine.elf()) {
        return Some("it is for another machine");
    }
    match is_dynamic(bytes) {
        Some(false) => None,
        Some(true) => Some("it is linked dynamically, and the initrd has no libraries"),
        None => Some("its program headers are damaged"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The smallest file that passes for an agent; `kind` is the type of its one program header.
    pub(in super::super) fn program(machine: Machine, kind: u32) -> Vec<u8> {
        crate::elf::program(machine.elf(), kind)
    }

    #[test]
    fn only_a_static_program_of_this_machine_is_fit() {
        let fit = program(Machine::X86_64, 1);
        assert_eq!(unfit(&fit, Machine::X86_64), None);
        assert!(unfit(&fit, Machine::Aarch64).unwrap().contains("another machine"));
        assert!(unfit(&program(Machine::X86_64, 3), Machine::X86_64).unwrap().contains("dynamically"));
        assert!(unfit(b"#!/bin/sh", Machine::X86_64).is_some());
        for length in 0..fit.len() - 56 + 4 {
            assert!(unfit(&fit[..length], Machine::X86_64).is_some(), "{length}");
        }
    }

    #[test]
    fn a_changed_agent_has_another_digest() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(directory.path().join("data"))).unwrap();
        let path = directory.path().join("agent");
        let mut bytes = program(Machine::HOST, 1);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(digest(&path, &data).unwrap(), Digest::of(&bytes));
        assert_eq!(digest(&path, &data).unwrap(), Digest::of(&bytes), "from the cache");
        bytes.push(0);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(digest(&path, &data).unwrap(), Digest::of(&bytes));
    }

    #[test]
    fn without_an_agent_the_error_says_where_it_was_looked_for() {
        let error = find(Some(Path::new("/nowhere/agent"))).unwrap_err();
        assert!(matches!(&error, SetupError::NoAgent { looked } if looked.len() == 1), "{error}");
        assert!(error.hint().unwrap().contains("/nowhere/agent"));
    }
}
