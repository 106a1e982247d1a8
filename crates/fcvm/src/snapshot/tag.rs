//! Names of snapshots.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest tag.
const MAX: usize = 63;

/// What the user calls a snapshot: up to 63 letters, digits, `_`, `.` and `-`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotTag(String);

/// The text is no tag.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is no tag: up to {MAX} letters, digits, `_`, `.` and `-`, the first a letter or digit")]
pub struct ParseTagError {
    text: String,
}

impl SnapshotTag {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SnapshotTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for SnapshotTag {
    type Err = ParseTagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        if bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.len() <= MAX
            && bytes.iter().all(good)
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseTagError { text: text.to_owned() })
        }
    }
}

impl TryFrom<String> for SnapshotTag {
    type Error = ParseTagError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SnapshotTag> for String {
    fn from(tag: SnapshotTag) -> Self {
        tag.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_name_of_a_directory_and_no_option() {
        for good in ["a", "web-1.2_x", &"a".repeat(MAX)] {
            assert_eq!(good.parse::<SnapshotTag>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "-a", "a/b", "ä", "a b", &"a".repeat(MAX + 1)] {
            assert!(bad.parse::<SnapshotTag>().is_err(), "{bad}");
        }
    }
}
