//! OCI images: where they come from, the store, and the disks made of them.

pub mod archive;
pub mod credentials;
pub mod disk;
mod error;
mod from_engine;
mod import;
pub mod layer;
mod load;
pub mod model;
mod name;
mod reference;
pub mod registries;
pub mod registry;
mod resolve;
mod save;
pub mod spec;
mod store;
#[cfg(test)]
mod testing;
pub mod transport;
mod words;

pub use error::ImageError;
pub use import::{ImportOptions, Tarball, created_from_env, import};
pub use load::load;
pub use name::{FullName, IdPrefix, ImageName, NameError, Reference, ShortNames};
pub use reference::{EngineName, ImageRef, ReferenceError};
pub use resolve::{PullPolicy, resolve};
pub use save::{SaveFormat, Saved, Target as SaveTarget, save};
pub use store::{
    BlobUsage, Damage, Details, Files, Filter, Force, Holder, ImageUsage, Listed, NameRecord, Origin,
    Outcome, Prunable, Pruned, Pruning, Refetch, Removed, Repair, Store, StoredImage, Usage, UseLock, Wrong,
};
pub use words::{Words, WordsError};
