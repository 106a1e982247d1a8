//! How registries are reached: short names, mirrors, plain http, as `registries.conf` says.
//!
//! <https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md>,
//! version 2. [`RegistryFiles`] finds and reads the files, `config` puts them together,
//! `lookup` answers.

mod config;
mod error;
mod files;
mod lookup;
#[cfg(test)]
mod tests;

pub use error::RegistriesError;
pub use files::RegistryFiles;

use super::{FullName, ShortNames};

/// The configuration of registries.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    short_names: ShortNames,
    registries: Vec<lookup::Registry>,
}

/// A place that may have a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The host, with its port where it has one.
    pub registry: String,
    /// The repository there.
    pub repository: String,
    /// How it is spoken to.
    pub security: Security,
}

/// How a registry is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// By https with a certificate that is valid.
    Verified,
    /// By https whatever the certificate is, or else by plain http.
    Insecure,
}

impl Registries {
    /// How names without a registry are completed.
    #[must_use]
    pub fn short_names(&self) -> &ShortNames {
        &self.short_names
    }

    /// A registry itself, without regard to mirrors: what a login is for.
    #[must_use]
    pub fn endpoint_of(&self, registry: &str) -> Endpoint {
        lookup::endpoint_of(&self.registries, registry)
    }

    /// The places to be asked for a name, mirrors first. A registry on this machine needs no
    /// certificate unless the configuration says so.
    ///
    /// # Errors
    /// Where the configuration forbids to ask any, or moves the name to what is no place.
    pub fn endpoints(&self, name: &FullName) -> Result<Vec<Endpoint>, RegistriesError> {
        lookup::endpoints(&self.registries, name)
    }
}
