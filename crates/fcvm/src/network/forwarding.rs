//! Settings of the host's kernel without which it passes nothing on, as long as there are bridged VMs.
//!
//! What a setting was before is in a file, on which every bridged VM of the host has a shared lock: whoever
//! gets it alone is the last, and sets back what was changed. So does the next command after the last VM's
//! process was killed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::NetworkError;

/// The file's name.
const FILE: &str = "forwarding.json";
/// Another, whose lock is for a moment only.
const LOCK: &str = "forwarding.lock";
/// Where the settings are.
const ROOT: &str = "/proc/sys";
/// Longest file, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A setting, below `/proc/sys`, and what it has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting(pub(super) &'static str, pub(super) &'static str);

/// That the host passes on IPv4.
pub(super) const V4: Setting = Setting("net/ipv4/ip_forward", "1");
/// That it passes on IPv6.
pub(super) const V6: Setting = Setting("net/ipv6/conf/all/forwarding", "1");

/// The settings are as they have to be, as long as this lives.
#[derive(Debug)]
pub(super) struct Held {
    file: File,
    directory: PathBuf,
    root: PathBuf,
}

/// Sees to settings.
///
/// # Errors
/// Where they cannot be changed.
pub(super) fn hold(directory: &Path, settings: &[Setting]) -> Result<Held, NetworkError> {
    own(directory)
        .and_then(|directory| hold_below(Path::new(ROOT), &directory, settings))
        .map_err(NetworkError::kernel("have the host's kernel pass on packets"))
}

fn hold_below(root: &Path, directory: &Path, settings: &[Setting]) -> io::Result<Held> {
    fs::create_dir_all(directory)?;
    let _turn = turn(directory)?;
    let mut file =
        File::options().read(true).write(true).create(true).truncate(false).open(directory.join(FILE))?;
    file.lock_shared()?;
    let mut before = read(&mut file)?;
    let mut to_change = Vec::new();
    for Setting(name, value) in settings {
        let path = root.join(name);
        let now = fs::read_to_string(&path)?;
        if now.trim() != *value {
            before.entry((*name).to_owned()).or_insert_with(|| now.trim().to_owned());
            to_change.push((path, value));
        }
    }
    if !to_change.is_empty() {
        // First what it was, then what it is to be: a change that nobody knows of would stay.
        write(&mut file, &before)?;
    }
    for (path, value) in to_change {
        fs::write(path, value)?;
    }
    Ok(Held { file, directory: directory.to_owned(), root: root.to_owned() })
}

/// Whoever changes something does so alone.
fn turn(directory: &Path) -> io::Result<File> {
    let turn = File::options().write(true).create(true).truncate(false).open(directory.join(LOCK))?;
    turn.lock()?;
    Ok(turn)
}

/// Sets back what dead processes left.
pub(super) fn restore(directory: &Path) {
    if let Ok(directory) = own(directory)
        && directory.join(FILE).exists()
    {
        restore_below(Path::new(ROOT), &directory);
    }
}

/// The directory of this process's network namespace, which has settings of its own.
fn own(directory: &Path) -> io::Result<PathBuf> {
    Ok(directory.join(format!("network-{}", fs::metadata("/proc/thread-self/ns/net")?.ino())))
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "the lock goes with the file");
        }
        restore_below(&self.root, &self.directory);
    }
}

fn restore_below(root: &Path, directory: &Path) {
    let restore = || {
        let _turn = turn(directory)?;
        let mut file = File::options().read(true).write(true).open(directory.join(FILE))?;
        if file.try_lock().is_err() {
            // There are others.
            return Ok(());
        }
        let before = read(&mut file)?;
        for (name, value) in &before {
            // Only what is ours to change, and nobody has changed since.
            let ours = [V4, V6].into_iter().find(|Setting(ours, _)| ours == name);
            if let Some(Setting(_, set)) = ours
                && fs::read_to_string(root.join(name))?.trim() == set
            {
                fs::write(root.join(name), value)?;
            }
        }
        if before.is_empty() { Ok(()) } else { write(&mut file, &BTreeMap::new()) }
    };
    if let Err(error) = restore() {
        let error: io::Error = error;
        tracing::warn!(%error, "the host's kernel goes on passing on packets: see `sysctl net.ipv4.ip_forward`");
    }
}

fn read(file: &mut File) -> io::Result<BTreeMap<String, String>> {
    let mut text = String::new();
    file.rewind()?;
    file.take(MAX_BYTES).read_to_string(&mut text)?;
    if text.is_empty() { Ok(BTreeMap::new()) } else { Ok(serde_json::from_str(&text)?) }
}

fn write(file: &mut File, settings: &BTreeMap<String, String>) -> io::Result<()> {
    let text = if settings.is_empty() { String::new() } else { serde_json::to_string(settings)? };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(value: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("net/ipv4")).unwrap();
        fs::write(root.path().join(V4.0), value).unwrap();
        root
    }

    fn now(root: &tempfile::TempDir) -> String {
        fs::read_to_string(root.path().join(V4.0)).unwrap()
    }

    #[test]
    fn the_last_sets_back_what_the_first_changed() {
        let (root, directory) = (host("0\n"), tempfile::tempdir().unwrap());
        let hold = || hold_below(root.path(), directory.path(), &[V4]).unwrap();
        let (first, second) = (hold(), hold());
        assert_eq!(now(&root), "1");
        drop(first);
        assert_eq!(now(&root), "1");
        drop(second);
        assert_eq!(now(&root), "0");
        // And once more, in the same file.
        let third = hold();
        assert_eq!(now(&root), "1");
        drop(third);
        assert_eq!(now(&root), "0");
    }

    #[test]
    fn what_was_so_before_stays_so() {
        let (root, directory) = (host("1\n"), tempfile::tempdir().unwrap());
        drop(hold_below(root.path(), directory.path(), &[V4]).unwrap());
        assert_eq!(now(&root), "1\n");
    }

    #[test]
    fn what_a_killed_process_left_is_set_back() {
        let (root, directory) = (host("0"), tempfile::tempdir().unwrap());
        let held = hold_below(root.path(), directory.path(), &[V4]).unwrap();
        // Its lock goes, and nothing else happens.
        let file = held.file.try_clone().unwrap();
        std::mem::forget(held);
        file.unlock().unwrap();
        assert_eq!(now(&root), "1");
        restore_below(root.path(), directory.path());
        assert_eq!(now(&root), "0");
    }
}
