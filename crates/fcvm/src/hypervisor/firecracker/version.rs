//! Which Firecracker a program is.

use std::{fmt, path::Path, str::FromStr};

use serde::{Deserialize, Serialize};

use super::PROGRAM;
use crate::{hypervisor::HypervisorError, process::version, storage::DataDir};

/// The first version whose snapshots and vsock device do what fcvm needs.
pub const LEAST: Version = Version { major: 1, minor: 16, patch: 1 };

/// A version of Firecracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A text is no version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no version of three numbers")]
pub struct ParseVersionError;

impl FromStr for Version {
    type Err = ParseVersionError;

    /// Takes `1.16.1`, `v1.16.1`, and one with a suffix such as `-dev`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut numbers = numbers.split('.').map(|number| number.parse().map_err(|_| ParseVersionError));
        let mut next = || numbers.next().unwrap_or(Err(ParseVersionError));
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if numbers.next().is_some() { Err(ParseVersionError) } else { Ok(version) }
    }
}

/// The version of a program.
///
/// # Errors
/// Where it is not there, cannot be run, or is no Firecracker.
pub(super) fn of(program: &Path, data: &DataDir) -> Result<Version, HypervisorError> {
    version::of(program, PROGRAM, data, parse).map_err(|error| HypervisorError::version(program, error))
}

/// `Firecracker v1.16.1` in the first line of what `--version` prints.
fn parse(said: &str) -> Option<Version> {
    said.lines().next()?.strip_prefix("Firecracker ")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

    use super::*;

    #[test]
    fn versions_are_ordered_by_their_numbers() {
        let version = |text: &str| text.parse::<Version>();
        assert_eq!(version("v1.16.1").unwrap(), LEAST);
        assert!(version("1.9.0").unwrap() < LEAST && version("1.16.0").unwrap() < LEAST);
        assert!(version("2.0.0-dev").unwrap() > LEAST);
        assert!(version("1.16").is_err() && version("1.16.1.2").is_err() && version("x").is_err());
        assert_eq!(parse("Firecracker v1.16.1\n\nmore\n"), Some(LEAST));
        assert_eq!(parse("QEMU emulator version 1.16.1"), None);
    }

    /// A program that counts its runs.
    fn program(directory: &Path, said: &str) -> PathBuf {
        let path = directory.join("firecracker");
        let script = format!("#!/bin/sh\necho run >> {}/runs\necho '{said}'\n", directory.display());
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn runs(directory: &Path) -> usize {
        fs::read_to_string(directory.join("runs")).unwrap().lines().count()
    }

    #[test]
    fn a_program_is_asked_once_until_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(directory.path().join("data"))).unwrap();
        let path = program(directory.path(), "Firecracker v1.16.1");
        for _ in 0..3 {
            assert_eq!(of(&path, &data).unwrap(), LEAST);
        }
        assert_eq!(runs(directory.path()), 1);
        let path = program(directory.path(), "Firecracker v1.17.12");
        assert_eq!(of(&path, &data).unwrap().to_string(), "1.17.12");
        assert_eq!(runs(directory.path()), 2);
    }

    #[test]
    fn what_is_no_firecracker_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDir::open(Some(directory.path().join("data"))).unwrap();
        let error = of(&program(directory.path(), "hello"), &data).unwrap_err();
        assert!(error.to_string().contains("`hello`"), "{error}");
        let missing = of(&directory.path().join("none"), &data).unwrap_err();
        assert!(matches!(missing, HypervisorError::Start { .. }), "{missing}");
    }
}
