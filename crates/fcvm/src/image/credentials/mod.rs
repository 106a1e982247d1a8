//! Who the user is to a registry.

use std::fmt;

/// What a registry is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token that the registry's token service takes in exchange for another.
    IdentityToken {
        /// The token.
        token: Secret,
    },
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Where logins are looked for.
#[derive(Debug, Clone, Default)]
pub struct Credentials {}

impl Credentials {
    /// The user's files, or one that is named.
    #[must_use]
    pub fn of_user(_file: Option<std::path::PathBuf>) -> Self {
        Self {}
    }

    /// The login for a repository.
    ///
    /// # Errors
    /// Where a file or a helper cannot be read.
    pub fn find(&self, _registry: &str, _repository: &str) -> Result<Option<Login>, super::ImageError> {
        Ok(None)
    }
}
