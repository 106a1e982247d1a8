//! Ids of images, or what they begin with.

use std::fmt;

use crate::hash::Digest;

/// The beginning of an image's id or digest, in lowercase hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdPrefix(String);

impl IdPrefix {
    /// 1 to 64 hex digits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// What can be nothing but an id: all digits of one, or `sha256:` and some.
    pub(in crate::image) fn parse_certain(text: &str) -> Option<Self> {
        match text.strip_prefix("sha256:") {
            Some(digits) => Self::parse(digits),
            None => Self::parse(text).filter(|id| id.0.len() == 64),
        }
    }

    /// All of a digest.
    #[must_use]
    pub fn of(digest: &Digest) -> Self {
        Self(digest.hex())
    }

    /// The hex digits.
    #[must_use]
    pub fn digits(&self) -> &str {
        &self.0
    }

    /// Whether the digest begins so.
    #[must_use]
    pub fn matches(&self, digest: &Digest) -> bool {
        digest.hex().starts_with(&self.0)
    }
}

impl fmt::Display for IdPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}
