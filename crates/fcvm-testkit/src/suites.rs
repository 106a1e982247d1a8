//! Judges from outside: crates that `scripts/deps.sh test` installs into the target directory.

use std::path::{Path, PathBuf};

use crate::skip;

/// What `pjdfstest` is told: all features that Linux has; there is a second file system, to which no file can be
/// moved, and nothing may be mounted anew.
pub const PJDFSTEST: &str = r#"
[features]
secondary_fs = "/dev/shm"
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.001
allow_remount = false
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"], ["bin", "bin"]]
"#;

/// Where a program of a suite is; says why where it is not there. `temporary` is Cargo's `CARGO_TARGET_TMPDIR`.
#[must_use]
pub fn program(temporary: &str, name: &str) -> Option<PathBuf> {
    let program = Path::new(temporary).with_file_name("test-programs").join("bin").join(name);
    if !program.exists() {
        skip(format!("no `{name}`: `scripts/deps.sh test` installs it"));
        return None;
    }
    Some(program)
}
