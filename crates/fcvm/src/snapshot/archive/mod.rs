//! A snapshot as one file, to go to another host or to be kept.
//!
//! ```text
//! zstd, with a checksum of its content:
//!   tar:
//!     manifest.json                                            first
//!     state, memory.bin, scratch.raw                           those that the manifest names
//! ```
//! A file with holes is stored as GNU tar does it in its format 1.0: its data alone, after a map of where they
//! go, with its name and length in a pax header. So `tar` can read it, too. What is read is not trusted: only
//! these entries are taken, of the lengths that the manifest says, and with its digests; the checksum is the
//! manifest's own.

mod meter;
mod pack;
mod sparse;
mod unpack;

pub use pack::export;
pub use unpack::import;
