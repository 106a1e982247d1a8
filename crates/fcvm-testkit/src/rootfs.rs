//! Tarballs of root file systems and of layers.

use std::{fs, iter, process::Command};

use tar::{Builder, EntryType, Header};

use crate::busybox;

/// A layer, or a whole root file system: entries in order.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    entries: Vec<Entry>,
}

/// One entry of a [`Layer`].
#[derive(Debug, Clone)]
pub struct Entry {
    path: String,
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum Kind {
    File(Vec<u8>),
    Directory,
    Symlink(String),
    HardLink(String),
    Fifo,
    Device(u32, u32),
}

/// Some moment after 1970 and before today.
const MTIME: u64 = 1_600_000_000;

impl Entry {
    fn new(path: &str, kind: Kind, mode: u32) -> Self {
        Self { path: path.into(), kind, mode, owner: (0, 0), mtime: MTIME, xattrs: Vec::new() }
    }

    /// A file, executable by all.
    #[must_use]
    pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self::new(path, Kind::File(content.into()), 0o755)
    }

    /// A directory.
    #[must_use]
    pub fn directory(path: &str) -> Self {
        Self::new(path, Kind::Directory, 0o755)
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(path: &str, target: &str) -> Self {
        Self::new(path, Kind::Symlink(target.into()), 0o777)
    }

    /// One more name of a file.
    #[must_use]
    pub fn hard_link(path: &str, target: &str) -> Self {
        Self::new(path, Kind::HardLink(target.into()), 0o755)
    }

    /// A named pipe.
    #[must_use]
    pub fn fifo(path: &str) -> Self {
        Self::new(path, Kind::Fifo, 0o600)
    }

    /// A character device.
    #[must_use]
    pub fn device(path: &str, major: u32, minor: u32) -> Self {
        Self::new(path, Kind::Device(major, minor), 0o600)
    }

    /// With that mode: set-user-ID and so on included.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// With that owner and group.
    #[must_use]
    pub fn owner(mut self, user: u64, group: u64) -> Self {
        self.owner = (user, group);
        self
    }

    /// With that modification time, in seconds since 1970.
    #[must_use]
    pub fn mtime(mut self, mtime: u64) -> Self {
        self.mtime = mtime;
        self
    }

    /// With an extended attribute.
    #[must_use]
    pub fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((name.into(), value.into()));
        self
    }

    fn append(&self, tar: &mut Builder<Vec<u8>>) {
        let names: Vec<_> = self.xattrs.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
        let values =
            names.iter().zip(&self.xattrs).map(|(name, (_, value))| (name.as_str(), value.as_slice()));
        tar.append_pax_extensions(values).unwrap();
        let mut header = Header::new_ustar();
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.mtime);
        header.set_size(0);
        let mut content: &[u8] = &[];
        let link = |header: &mut Header, kind, target: &str| {
            header.set_entry_type(kind);
            header.set_link_name(target).unwrap();
        };
        match &self.kind {
            Kind::File(bytes) => {
                header.set_size(bytes.len() as u64);
                content = bytes;
            }
            Kind::Directory => header.set_entry_type(EntryType::Directory),
            Kind::Symlink(target) => link(&mut header, EntryType::Symlink, target),
            Kind::HardLink(target) => link(&mut header, EntryType::Link, target),
            Kind::Fifo => header.set_entry_type(EntryType::Fifo),
            Kind::Device(major, minor) => {
                header.set_entry_type(EntryType::Char);
                header.set_device_major(*major).unwrap();
                header.set_device_minor(*minor).unwrap();
            }
        }
        tar.append_data(&mut header, &self.path, content).unwrap();
    }
}

impl Layer {
    /// Without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more entry.
    #[must_use]
    pub fn with(mut self, entry: Entry) -> Self {
        self.entries.push(entry);
        self
    }

    /// Without `path`, which a layer below has.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let (directory, name) =
            path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
        let separator = if directory.is_empty() { "" } else { "/" };
        self.with(Entry::file(&format!("{directory}{separator}.wh.{name}"), ""))
    }

    /// Without anything that layers below have in `directory`.
    #[must_use]
    pub fn opaque(self, directory: &str) -> Self {
        self.with(Entry::file(&format!("{directory}/.wh..wh..opq"), ""))
    }

    /// With a busybox, its applets, and the directories and files that programs expect.
    #[must_use]
    pub fn busybox(mut self) -> Self {
        for directory in ["bin", "etc", "proc", "sys", "dev", "root", "run"] {
            self = self.with(Entry::directory(directory));
        }
        self = self
            .with(Entry::directory("tmp").mode(0o1777))
            .with(Entry::file("bin/busybox", busybox()))
            .with(
                Entry::file("etc/passwd", "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n")
                    .mode(0o644),
            )
            .with(Entry::file("etc/group", "root:x:0:\nstaff:x:1001:\n").mode(0o644));
        for applet in busybox::APPLETS {
            self = self.with(Entry::symlink(&format!("bin/{applet}"), "busybox"));
        }
        self
    }

    /// With one of the host's programs and the libraries that it is linked to.
    #[must_use]
    pub fn program(mut self, path: &str) -> Self {
        let output = Command::new("ldd").arg(path).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let libraries = said.split_whitespace().filter(|word| word.starts_with('/'));
        let files: Vec<_> = iter::once(path).chain(libraries).collect();
        for file in files {
            self = self.with(Entry::file(file.trim_start_matches('/'), fs::read(file).unwrap()));
        }
        self
    }

    /// The tarball, uncompressed.
    #[must_use]
    pub fn to_tar(&self) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for entry in &self.entries {
            entry.append(&mut tar);
        }
        tar.into_inner().unwrap()
    }
}
