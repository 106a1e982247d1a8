//! What can go wrong.

use std::{io, path::PathBuf};

use rustix::io::Errno;

/// The memory file cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// It cannot be opened, looked at or mapped.
    #[error("failed to {what} memory file `{path}`")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its length is no number of pages.
    #[error("memory file `{path}` has {len} bytes: not a number of pages")]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// It is another than it was when it was opened.
    #[error("memory file `{path}` was changed while it was served")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// Regions that do not fit the memory file, or each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// None, or too many.
    #[error("{0} regions, and not 1 to {max}", max = crate::MAX_REGIONS)]
    Count(usize),
    /// Not a page size that can be served.
    #[error("pages of {0} bytes")]
    PageSize(u64),
    /// Regions with different page sizes.
    #[error("regions with different page sizes")]
    Mixed,
    /// Nothing in it, or something that is not a number of pages.
    #[error("region {0} is empty, or its address, size or offset is not a number of pages")]
    Unaligned(usize),
    /// Its end is beyond what addresses are.
    #[error("region {0} ends beyond the last address")]
    Overflow(usize),
    /// Not within the memory file.
    #[error("region {0} is not within the memory file")]
    Outside(usize),
    /// Two regions have addresses, or parts of the file, in common.
    #[error("two regions overlap")]
    Overlap,
}

/// Who connected was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The message did not come in time.
    #[error("no whole message in time")]
    Timeout,
    /// The connection ended before the message did.
    #[error("the connection ended within the message")]
    Ended,
    /// More bytes, or more pieces, than a handshake has.
    #[error("the message is too long or in too many pieces")]
    TooLong,
    /// Not the JSON that is expected.
    #[error("the message is not a list of regions")]
    Json(#[source] serde_json::Error),
    /// Not one descriptor.
    #[error("{0} descriptors came with the message, and not one")]
    Descriptors(usize),
    /// The descriptor is of something else.
    #[error("the descriptor is not a userfaultfd")]
    NotUffd,
    /// The regions cannot be served.
    #[error("the regions do not fit")]
    Layout(#[from] LayoutError),
    /// The memory file cannot be served any more.
    #[error("the memory cannot be served")]
    Memory(#[source] MemoryError),
    /// There are as many VMs as may be.
    #[error("{0} VMs are served, which is the limit")]
    TooMany(usize),
    /// The server stops.
    #[error("the server stops")]
    Stopping,
    /// A system call failed.
    #[error("failed to {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Why a VM cannot be served any longer, so that it had to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// A fault outside of the regions that it named.
    #[error("a fault at {address:#x}, which is in none of its regions")]
    Stray {
        /// Where.
        address: u64,
    },
    /// The memory file cannot be read there: it was cut off, or its disk fails.
    #[error("the memory file cannot be read at {offset:#x}")]
    Memory {
        /// Where in the file.
        offset: u64,
    },
    /// The host has no page for it.
    #[error("the host has no memory for it")]
    NoMemory,
    /// The uffd did not do what it was asked.
    #[error("its uffd failed to {what}: {errno}")]
    Uffd {
        /// What it was asked.
        what: &'static str,
        /// Why not.
        errno: Errno,
    },
    /// Its uffd was made to block.
    #[error("its uffd blocks, or is broken")]
    Blocking,
    /// An event that no VMM asks for.
    #[error("its uffd told of event {0:#x}")]
    Event(u8),
    /// It closed its socket, and lives on.
    #[error("it closed its socket, and lives on")]
    Deserted,
    /// A defect of this library.
    #[error("the thread that served it panicked")]
    Panicked,
}
