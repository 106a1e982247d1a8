//! The one program that containers of tests need.

use std::{fs, path::PathBuf};

/// Debian's `busybox-static`, or why there is none.
pub(crate) fn find() -> Result<PathBuf, String> {
    let candidates = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let is_static = |path: &PathBuf| {
        // A dynamic program names its loader within its first page.
        fs::read(path).is_ok_and(|bytes| {
            let head = &bytes[..bytes.len().min(4096)];
            !head.windows(8).any(|window| window == b"ld-linux")
        })
    };
    let found = candidates.into_iter().find(is_static);
    found.ok_or_else(|| "no static busybox (package busybox-static)".into())
}

/// The bytes of a static busybox.
#[must_use]
pub fn busybox() -> Vec<u8> {
    fs::read(find().unwrap()).unwrap()
}

/// Names it is given in images.
pub(crate) const APPLETS: [&str; 34] = [
    "cat",
    "chmod",
    "cp",
    "cut",
    "date",
    "dd",
    "df",
    "echo",
    "env",
    "false",
    "find",
    "grep",
    "head",
    "hostname",
    "id",
    "kill",
    "ln",
    "ls",
    "mkdir",
    "mount",
    "mv",
    "printf",
    "ps",
    "pwd",
    "rm",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "stat",
    "touch",
    "true",
    "wc",
    "yes",
];
