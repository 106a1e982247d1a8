//! Judges for images: `e2fsck`, and the kernel through a loop mount.

use std::{
    collections::BTreeMap,
    fmt, fs,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use super::{Ext4Writer, Options, SizePolicy, Stats, Timestamp};
use crate::hash::Digest;

/// A finished image in a directory of its own.
pub(crate) struct Image {
    _directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn options() -> Options {
    Options {
        label: "test".into(),
        uuid_seed: b"seed".to_vec(),
        created: Timestamp { seconds: 1_700_000_000, nanoseconds: 0 },
    }
}

/// Builds an image and has it checked.
pub(crate) fn build(size: SizePolicy, make: impl FnOnce(&mut Ext4Writer)) -> (Image, Stats) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.ext4");
    let file = fs::File::options().create_new(true).read(true).write(true).open(&path).unwrap();
    let mut writer = Ext4Writer::create(file, options()).unwrap();
    make(&mut writer);
    let stats = writer.finish(size).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), stats.bytes);
    check(&path);
    (Image { _directory: directory, path }, stats)
}

/// Has `e2fsck` look at an image; it must find nothing.
pub(crate) fn check(image: &Path) {
    let Ok(output) = Command::new("e2fsck").args(["-f", "-n"]).arg(image).output() else {
        eprintln!("skipped: no e2fsck");
        return;
    };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "e2fsck {:?}: {}", output.status.code(), head(&text));
    assert!(!text.contains("IGNORED") && !text.contains("? no"), "{}", head(&text));
}

fn head(text: &str) -> &str {
    text.char_indices().nth(4000).map_or(text, |(end, _)| &text[..end])
}

/// An image mounted read-only until dropped.
pub(crate) struct Mount {
    pub(crate) path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Mount {
    /// Mounts an image; `None`, with the reason printed, where that cannot be done.
    pub(crate) fn new(image: &Path) -> Option<Self> {
        Self::with(image, "loop,ro,noatime")
    }

    pub(crate) fn with(image: &Path, options: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        if !Path::new("/dev/loop-control").exists() {
            eprintln!("skipped: no loop devices");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let mount = Command::new("mount").args(["-t", "ext4", "-o", options]).arg(image).arg(&path).output();
        let output = mount.unwrap();
        assert!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Some(Self { path, _directory: directory })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.path).status().unwrap();
    }
}

/// All that a test compares of a file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Type and permissions as `st_mode` has them.
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    /// Of regular files.
    pub(crate) size: u64,
    /// The digest of a file, the target of a link, the number of a device.
    pub(crate) content: String,
    pub(crate) links: u64,
    pub(crate) xattrs: BTreeMap<String, String>,
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, owner, mtime, size, content, links, xattrs } = self;
        write!(f, "{mode:o} {owner:?} {mtime:?} {size} {content} x{links} {xattrs:?}")
    }
}

/// Lists everything beneath a directory, the directory itself as `""`.
pub(crate) fn list(root: &Path) -> BTreeMap<Vec<u8>, Listed> {
    let mut listed = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let mut size = 0;
        let content = if kind.is_file() {
            size = metadata.len();
            let mut file = fs::File::open(&path).unwrap();
            if size > 1 << 30 { "large".into() } else { Digest::of_reader(&mut file).unwrap().short() }
        } else if kind.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().escape_ascii().to_string()
        } else if kind.is_block_device() || kind.is_char_device() {
            let device = metadata.rdev();
            format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device))
        } else {
            String::new()
        };
        if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        let file = Listed {
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            size,
            content,
            links: if kind.is_dir() { 0 } else { metadata.nlink() },
            xattrs: xattrs(&path),
        };
        listed.insert(name, file);
    }
    listed
}

fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 1 << 16];
            let os_name = std::ffi::OsString::from_vec(name.to_vec());
            let length = rustix::fs::lgetxattr(path, &os_name, &mut value[..]).unwrap();
            (name.escape_ascii().to_string(), value[..length].escape_ascii().to_string())
        })
        .collect()
}
