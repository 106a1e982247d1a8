//! How registries are reached: short names, mirrors, plain http, as `registries.conf` says.
//!
//! <https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md>

mod error;

pub use error::RegistriesError;

use super::{FullName, ShortNames};

/// Where the configuration of registries is looked for. Nothing is read before it is needed.
#[derive(Debug, Clone, Default)]
pub struct RegistryFiles {}

/// The configuration of registries.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    short_names: ShortNames,
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

impl RegistryFiles {
    /// Those of this user and this machine.
    #[must_use]
    pub fn of_user() -> Self {
        Self {}
    }

    /// None: the defaults.
    #[must_use]
    pub fn none() -> Self {
        Self {}
    }

    /// Reads them.
    ///
    /// # Errors
    /// Where one cannot be read or understood.
    pub fn load(&self) -> Result<Registries, RegistriesError> {
        Ok(Registries::default())
    }
}

impl Registries {
    /// How names without a registry are completed.
    #[must_use]
    pub fn short_names(&self) -> &ShortNames {
        &self.short_names
    }

    /// The places to be asked for a name, mirrors first.
    ///
    /// # Errors
    /// Where the configuration forbids to ask any.
    pub fn endpoints(&self, name: &FullName) -> Result<Vec<Endpoint>, RegistriesError> {
        Ok(vec![Endpoint {
            registry: name.registry().to_owned(),
            repository: name.repository().to_owned(),
            security: Security::Verified,
        }])
    }
}
