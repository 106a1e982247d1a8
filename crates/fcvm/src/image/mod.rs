//! OCI images: where they come from, the store, and the disks made of them.

pub mod archive;
pub mod credentials;
pub mod disk;
mod error;
mod from_engine;
mod import;
pub mod layer;
pub mod model;
mod name;
mod reference;
pub mod registries;
pub mod registry;
mod resolve;
pub mod spec;
mod store;
#[cfg(test)]
mod testing;
pub mod transport;
mod words;

pub use error::ImageError;
pub use import::{ImportOptions, Tarball, created_from_env, import};
pub use name::{FullName, IdPrefix, ImageName, NameError, Reference, ShortNames};
pub use reference::{EngineName, ImageRef, ReferenceError};
pub use resolve::{PullPolicy, resolve};
pub use store::{Force, Listed, NameRecord, Origin, Removed, Store, StoredImage, UseLock};
pub use words::{Words, WordsError};
