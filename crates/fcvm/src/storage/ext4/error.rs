//! What can go wrong while writing a file system.

use std::io;

/// An operation on the file system being written failed.
///
/// Paths are those within the file system, with odd bytes escaped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Ext4Error {
    /// The path cannot name a file.
    #[error("path `{path}` {reason}")]
    InvalidPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Something that is not a directory has a path beneath it.
    #[error("`{component}` in the path `{path}` is not a directory")]
    NotADirectory {
        /// The path.
        path: String,
        /// Its offending component.
        component: String,
    },
    /// Symbolic links lead to one another.
    #[error("path `{path}` passes too many symbolic links")]
    SymlinkLoop {
        /// The path.
        path: String,
    },
    /// Directories are nested too deeply.
    #[error("path `{path}` is nested more than {limit} directories deep")]
    TooDeep {
        /// The path.
        path: String,
        /// How deep is allowed.
        limit: u32,
    },
    /// The target of a hard link does not exist.
    #[error("hard link `{path}` points to `{target}`, which does not exist")]
    MissingTarget {
        /// The link.
        path: String,
        /// What it should be a link to.
        target: String,
    },
    /// A hard link cannot be made to this.
    #[error("hard link `{path}` points to the directory `{target}`")]
    LinkToDirectory {
        /// The link.
        path: String,
        /// The directory.
        target: String,
    },
    /// A file has more names than ext4 counts.
    #[error("hard link `{path}` is one more than the {limit} a file can have")]
    TooManyLinks {
        /// The link.
        path: String,
        /// How many names a file can have.
        limit: u32,
    },
    /// The target of a symbolic link is empty, too long, or holds a zero byte.
    #[error("symbolic link `{path}` has a target of {length} bytes, not 1 to 4095 without a zero byte")]
    InvalidTarget {
        /// The link.
        path: String,
        /// How long its target is.
        length: usize,
    },
    /// A file is larger than ext4 holds.
    #[error("file `{path}` has {size} bytes, more than ext4 holds")]
    FileTooLarge {
        /// The file.
        path: String,
        /// Its size.
        size: u64,
    },
    /// The segments of a sparse file are not in order, or pass its end.
    #[error("file `{path}` has a bad map of its sparse segments")]
    InvalidSegments {
        /// The file.
        path: String,
    },
    /// An extended attribute has a name or value ext4 cannot hold.
    #[error("extended attribute `{name}` of `{path}` {reason}")]
    InvalidXattr {
        /// The file.
        path: String,
        /// The attribute.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The extended attributes of a file do not fit into its inode and one block.
    #[error("extended attributes of `{path}` take {bytes} bytes, more than ext4 holds for a file")]
    XattrsTooLarge {
        /// The file.
        path: String,
        /// What they take.
        bytes: usize,
    },
    /// There is more than the file system can describe.
    #[error("file system grows past {limit} bytes")]
    TooLarge {
        /// How large it may be.
        limit: u64,
    },
    /// There are more files, or longer names and attributes, than are kept in memory.
    #[error("files' names and attributes take more than {limit} bytes of memory")]
    TooManyFiles {
        /// How much they may take.
        limit: u64,
    },
    /// The label is longer than the superblock holds.
    #[error("label `{label}` is longer than 16 bytes")]
    InvalidLabel {
        /// The label.
        label: String,
    },
    /// The content of a file could not be read.
    #[error("failed to read the content of `{path}`")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk the image is written to is full.
    #[error("no space left for the file-system image")]
    NoSpace {
        /// As the system put it.
        #[source]
        source: io::Error,
    },
    /// The image could not be written.
    #[error("failed to write the file-system image")]
    Write {
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Ext4Error {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSpace { .. } => Some("free some space, or name another data directory".into()),
            _ => None,
        }
    }

    /// A failure to write the image.
    pub(super) fn write(source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { source },
            _ => Self::Write { source },
        }
    }
}

/// A path as errors show it.
pub(super) fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}
