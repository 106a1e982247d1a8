//! Who the user is to registries, as Podman, skopeo and Docker keep it.
//!
//! <https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md> and Docker's
//! `config.json`. `locate` knows where the files are, `file` what is in them, `key` which of
//! their entries is about a repository, `helper` the programs that keep passwords elsewhere,
//! and `write` changes a file.
//!
//! Not the crate `docker_credential`: it reads Docker's file alone, knows neither keys of
//! namespaces nor the files of containers, does not write, and drops the causes of errors.

mod error;
mod file;
mod helper;
mod key;
mod locate;
mod place;
mod secret;
#[cfg(test)]
mod tests;
mod write;

pub use error::CredentialsError;
pub use locate::Credentials;
pub use place::Place;
pub use secret::Secret;

/// What a registry is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    /// A user and a password, or what the registry has in its place.
    Password {
        /// The user.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token that the registry gave for a password once.
    IdentityToken {
        /// The user, where it is known.
        user: Option<String>,
        /// The token.
        token: Secret,
    },
}

impl Login {
    /// The user, where it is known.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Password { user, .. } => Some(user),
            Self::IdentityToken { user, .. } => user.as_deref(),
        }
    }
}
