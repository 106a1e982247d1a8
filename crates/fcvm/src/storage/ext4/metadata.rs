//! What files are, besides their content.

/// Owner, mode, time and extended attributes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Permissions, setuid, setgid and sticky bits; other bits are ignored.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Time of last modification; the other times of the file are the same.
    pub mtime: Timestamp,
    /// Extended attributes; of equal names the last counts.
    pub xattrs: Vec<Xattr>,
}

/// A time since 1970, as files carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds since.
    pub nanoseconds: u32,
}

/// An extended attribute, as `getxattr` gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xattr {
    /// The full name: `user.mime_type`.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// A file without content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A character device.
    CharDevice {
        /// Which driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Which driver.
        major: u32,
        /// Which of its devices.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket nobody listens on.
    Socket,
}

/// The type of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Special(Special),
}

/// A part of a sparse file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file it starts.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
}

impl Metadata {
    /// Owned by root, without attributes, of the start of 1970.
    #[must_use]
    pub fn root(mode: u16) -> Self {
        Self { mode, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Vec::new() }
    }
}
