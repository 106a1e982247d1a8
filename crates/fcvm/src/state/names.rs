//! Names and ids of VMs.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Longest name of anything.
pub const MAX_NAME: usize = 64;

/// A VM's name, as Podman allows them: letters, digits, `_`, `.`, `-`, the first a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

/// The text is no name.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{text}` is not a name: up to {MAX_NAME} letters, digits, `_`, `.` or `-`, the first a letter or digit"
)]
pub struct NameError {
    text: String,
}

/// Whether Podman would take it for a name: letters, digits, `_`, `.`, `-`, the first a letter or digit.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    first && text.len() <= MAX_NAME && text.chars().all(allowed)
}

impl FromStr for VmName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_name(text) { Ok(Self(text.to_owned())) } else { Err(NameError { text: text.to_owned() }) }
    }
}

impl VmName {
    /// A name made of an id's bytes: two words.
    #[must_use]
    pub fn generate(id: &VmId) -> Self {
        let bytes = id.0.as_bytes();
        let pick = |words: &[&'static str], at: usize| {
            let number = bytes[at..at + 4].iter().fold(0usize, |sum, &digit| sum * 31 + usize::from(digit));
            words[number % words.len()]
        };
        Self(format!("{}_{}", pick(&ADJECTIVES, 0), pick(&NOUNS, 4)))
    }

    /// The generated name with part of the id: as unique as the id.
    #[must_use]
    pub fn long(id: &VmId) -> Self {
        Self(format!("{}_{}", Self::generate(id), id.short()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VmName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0
    }
}

/// A VM's id: 32 lower-case hex digits, random.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmId(String);

impl VmId {
    /// The id of some random bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(hex::encode(bytes))
    }

    /// All 32 digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 12 digits.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for VmId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 32 && text.bytes().all(hex) {
            Ok(Self(text))
        } else {
            Err(format!("`{text}` is not a VM id"))
        }
    }
}

impl From<VmId> for String {
    fn from(id: VmId) -> Self {
        id.0
    }
}

const ADJECTIVES: [&str; 32] = [
    "amber", "bold", "brisk", "calm", "clever", "crisp", "eager", "fair", "fleet", "fresh", "gentle", "glad",
    "grand", "happy", "jolly", "keen", "kind", "lively", "lucid", "mellow", "merry", "neat", "noble",
    "polite", "proud", "quick", "quiet", "sharp", "steady", "sunny", "swift", "warm",
];
const NOUNS: [&str; 32] = [
    "badger", "beaver", "bison", "crane", "dolphin", "eagle", "falcon", "ferret", "finch", "fox", "gecko",
    "heron", "ibis", "jackal", "koala", "lark", "lemur", "lynx", "marten", "mole", "newt", "otter", "owl",
    "panda", "puffin", "raven", "robin", "seal", "stoat", "swan", "tapir", "wren",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_podmans() {
        for good in ["a", "web-1", "0x.y_z", &"n".repeat(64)] {
            assert_eq!(good.parse::<VmName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", ".a", "_a", "a b", "a/b", "ä", "a\n", &"n".repeat(65)] {
            assert!(bad.parse::<VmName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn generated_names_are_names() {
        for seed in 0..=255 {
            let name = VmName::generate(&VmId::from_bytes([seed; 16]));
            assert!(name.as_str().parse::<VmName>().is_ok());
        }
    }

    #[test]
    fn ids_are_32_hex_digits() {
        let id = VmId::from_bytes([0xa1; 16]);
        assert_eq!(id.short(), "a1a1a1a1a1a1");
        assert!(VmId::try_from(id.as_str().to_owned()).is_ok());
        for bad in ["", "../../../../../../../../../etc/x", &"A1".repeat(16)] {
            assert!(VmId::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
