//! Reads Podman's files ahead, while the agent and the host get acquainted.

use std::fs::{self, File};

use rustix::fs::{Advice, fadvise};

/// What a container's start needs, largest first.
const FILES: [&str; 3] = ["/usr/bin/podman", "/usr/bin/crun", "/usr/bin/conmon"];
/// Libraries of these are read ahead too, by the beginnings of their names.
const LIBRARIES: [&str; 8] =
    ["libc.so", "libgpgme", "libseccomp", "libsubid", "libsqlite3", "libassuan", "libgpg-error", "libyajl"];

/// Asks the kernel to read the files; does not wait. Without any of them all goes on, later.
pub(super) fn start() {
    let directory = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let libraries = fs::read_dir(directory).into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name();
        LIBRARIES.iter().any(|library| name.as_encoded_bytes().starts_with(library.as_bytes()))
    });
    let files = FILES.iter().map(Into::into).chain(libraries.map(|entry| entry.path()));
    for file in files.filter_map(|path| File::open(path).ok()) {
        if let Err(error) = fadvise(&file, 0, None, Advice::WillNeed) {
            return tracing::debug!(%error, "no reading ahead");
        }
    }
}
