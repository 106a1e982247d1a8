//! Names of drives and network interfaces.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name of a drive or a network interface: ASCII letters, digits and underscores, so that it is
/// a segment of a path as it stands. Firecracker itself allows letters of any script.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceId(String);

/// A text is no device's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{id}` is no device's name: ASCII letters, digits and underscores, at least one")]
pub struct ParseDeviceIdError {
    /// The text.
    pub id: String,
}

impl DeviceId {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for DeviceId {
    type Error = ParseDeviceIdError;

    fn try_from(id: String) -> Result<Self, Self::Error> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if !id.is_empty() && id.bytes().all(fits) { Ok(Self(id)) } else { Err(ParseDeviceIdError { id }) }
    }
}

impl FromStr for DeviceId {
    type Err = ParseDeviceIdError;

    fn from_str(id: &str) -> Result<Self, Self::Err> {
        id.to_owned().try_into()
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_segment_of_a_path() {
        for good in ["a", "root_1", "ETH0", "_"] {
            assert_eq!(good.parse::<DeviceId>().unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a/b", "..", "a-b", "é", "a\n", "a?b"] {
            assert_eq!(bad.parse::<DeviceId>(), Err(ParseDeviceIdError { id: bad.into() }));
            assert!(serde_json::from_value::<DeviceId>(bad.into()).is_err());
        }
    }
}
