//! Which process connects a rootless VM where the user names none.

use super::Driver;
use crate::{process::version, setup::preflight::find_program, storage::DataDir};

/// The first that is installed; where none is, the one to install.
///
/// pasta is faster, and has IPv6, but not that of Debian 12 (2023-03-09): where a client ends its half of a
/// connection, the end does not arrive, and what was sent right before it may arrive twice. It is told from others
/// by not knowing its version. slirp4netns is then better.
#[must_use]
pub fn usual_driver(data: &DataDir) -> Driver {
    let installed = |driver: &Driver| find_program(&driver.to_string()).is_some();
    let all: Vec<_> = Driver::ALL.into_iter().filter(installed).collect();
    match all.as_slice() {
        [Driver::Pasta, Driver::Slirp4netns, ..] if !knows_its_version(data) => Driver::Slirp4netns,
        [first, ..] => *first,
        [] => Driver::Pasta,
    }
}

fn knows_its_version(data: &DataDir) -> bool {
    let program = find_program("pasta");
    program.is_some_and(|program| {
        version::of(&program, "pasta", data, |said| Some(is_version(said))).unwrap_or(false)
    })
}

/// `pasta 0.0~git20250503.587980c-2`, say, in the first line; or `pasta unknown version`.
fn is_version(said: &str) -> bool {
    said.lines().next().is_some_and(|line| line.bytes().any(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_digits() {
        assert!(is_version("pasta 0.0~git20250503.587980c-2\nCopyright Red Hat 2025\n"));
        assert!(is_version("pasta 2024_08_21.1d6142f"));
        assert!(!is_version("pasta unknown version\nCopyright 2023\n") && !is_version(""));
    }
}
