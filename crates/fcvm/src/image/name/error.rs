//! Why a text is not a name.

use super::{MAX_REPOSITORY, MAX_TAG};

/// Why a text is not a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// There is none.
    #[error("the name is empty")]
    Empty,
    /// Something in it is no letter, digit or separator.
    #[error("the name has characters that names cannot have")]
    Characters,
    /// Repositories are lowercase.
    #[error("the name has uppercase letters")]
    Uppercase,
    /// `//`, `a.-b`, `.a`.
    #[error("the name has a misplaced separator")]
    Separator,
    /// Longer than registries take.
    #[error("the name is longer than {MAX_REPOSITORY} characters")]
    Long,
    /// The registry's name or port.
    #[error("the registry is not a host name with an optional port")]
    Registry,
    /// What follows the colon.
    #[error("the tag is not 1 to {MAX_TAG} letters, digits, `_`, `.` and `-`")]
    Tag,
    /// What follows the `@`.
    #[error("the digest is not of the form sha256:<64 hex digits>")]
    Digest,
    /// Such a name would be taken for an id everywhere.
    #[error("the name is 64 hex digits, as ids are")]
    Id,
    /// Of a short name.
    #[error("an alias is for a name without registry, tag and digest, and another without tag and digest")]
    Alias,
    /// A full name was needed.
    #[error("the name lacks its registry or tag, or has a digest where one cannot be chosen")]
    Partial,
}

impl NameError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Uppercase => "write the name in lowercase; only tags may have uppercase letters".into(),
            Self::Digest => "`fcvm image ls --json` shows digests in full".into(),
            _ => "names look like `hello`, `nginx:alpine` or `quay.io/team/app:1.2`; \
                  paths like `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`"
                .into(),
        })
    }
}
