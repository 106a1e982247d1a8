//! Layers: tar archives applied to a file system that is being written.
//!
//! Archives are untrusted. What an entry may say is bounded before anything is
//! kept, nothing is ever written outside of the image, and symbolic links lead
//! nowhere but within it.
//!
//! Understood: ustar, star, GNU (long names, base-256 numbers, sparse files)
//! and PAX (`path`, `linkpath`, `size`, `uid`, `gid`, `mtime`, `SCHILY.xattr.*`,
//! `LIBARCHIVE.xattr.*`, sparse files 0.0, 0.1 and 1.0). In a layer, as the OCI
//! image specification has it, `.wh.NAME` removes `NAME` of the layers below,
//! and `.wh..wh..opq` all that they have in its directory.

mod apply;
mod archive;
mod error;
mod header;
mod pax;
mod sparse;
#[cfg(test)]
mod tests;

pub use apply::{apply_layer, apply_tar};
pub use error::{LayerError, TarError};
