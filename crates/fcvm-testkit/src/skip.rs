//! What cannot run here says so, and is counted.

use std::{env, fs::OpenOptions, io::Write as _, thread};

/// Says that this test is skipped and why; `$FCVM_TEST_SKIPS` names a file that
/// gets the same line, for a summary.
pub fn skip(reason: impl AsRef<str>) {
    let thread = thread::current();
    let reason = reason.as_ref().split_whitespace().collect::<Vec<_>>().join(" ");
    let line = format!("skipped: {}: {reason}\n", thread.name().unwrap_or("?"));
    print!("{line}");
    if let Some(path) = env::var_os("FCVM_TEST_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        // One write, so that tests that run at once do not mix their lines.
        file.and_then(|mut file| file.write_all(line.as_bytes())).unwrap();
    }
}

/// Whether this is root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether this is root; skips the test where it is not.
#[must_use]
pub fn needs_root() -> bool {
    if !is_root() {
        skip("needs root");
    }
    is_root()
}

/// Whether all the programs are installed; skips the test where one is not.
#[must_use]
pub fn needs_programs(programs: &[&str]) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = env::split_paths(&path).collect();
    directories.extend(["/usr/sbin", "/sbin"].map(Into::into));
    let missing = |name: &&&str| !directories.iter().any(|directory| directory.join(name).is_file());
    match programs.iter().find(missing) {
        None => true,
        Some(program) => {
            skip(format!("`{program}` is not installed"));
            false
        }
    }
}
