//! What fcvm keeps on disk: the layout of the data directory, and the writers
//! of file-system images.

mod atomic;
pub mod cow;
mod data_dir;
pub mod ext4;

pub use atomic::{AtomicFile, Lock, LockError, TEMPORARY_PREFIX};
pub use data_dir::{DataDir, DataDirError};
