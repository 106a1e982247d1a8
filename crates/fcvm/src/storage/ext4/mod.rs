//! Writes ext4 file systems: one pass, no mount, no privileges.
//!
//! File data goes to the image in the order it arrives and is never held in
//! memory; the tree of inodes and names is. [`Ext4Writer::finish`] writes the
//! rest behind the data. The same operations give the same bytes.
//!
//! ```text
//! block 0       superblock
//! 1..=GDT       group descriptors, room for 2 TiB; what is not needed is given back
//! data          files, in order of arrival; blocks of removed files are reused or punched out
//! metadata      directories, extent trees, long symlinks, attribute blocks
//! bitmaps       of every group, then every group's inode table (flex_bg lets them be here)
//! spare         free blocks, where asked for
//! ```
//!
//! There is no journal and no checksum: images are written once and mounted
//! read-only. They can be mounted writable too. Directories are linear lists,
//! which every ext4 reads; the kernel indexes those it grows.
//!
//! Format: `Documentation/filesystems/ext4` of the Linux kernel.

mod blocks;
mod directory;
mod error;
mod extents;
mod finish;
mod inode;
mod metadata;
mod path;
mod space;
mod superblock;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tree;
mod writer;
mod xattr;

pub use error::Ext4Error;
pub use metadata::{Kind, Metadata, Segment, Special, Timestamp, Xattr};
pub use superblock::Options;
pub use writer::{Ext4Writer, SizePolicy, Stats, Totals};

/// The size of a block in bytes.
const BLOCK: usize = 4096;
/// The same, as sizes of files are counted.
const BLOCK_BYTES: u64 = 4096;
/// A block of nothing.
const ZEROS: [u8; BLOCK] = [0; BLOCK];
