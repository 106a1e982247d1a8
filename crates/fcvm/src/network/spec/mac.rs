//! Hardware addresses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A hardware address of one interface: neither a group's nor all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no hardware address: write 02:00:00:00:00:01");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()));
            *byte = u8::from_str_radix(part.ok_or_else(wrong)?, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() || bytes == [0; 6] {
            return Err(wrong());
        }
        if bytes[0] & 1 != 0 {
            return Err(format!("`{text}` is the address of a group: the first number of one is even"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_hardware_address_is_one_interfaces() {
        assert_eq!("02:FC:00:00:00:0a".parse::<MacAddress>().unwrap().to_string(), "02:fc:00:00:00:0a");
        for bad in [
            "",
            "02:fc",
            "00:00:00:00:00:00",
            "01:00:00:00:00:00",
            "ff:ff:ff:ff:ff:ff",
            "02:00:00:00:00:00:00",
            "+2:00:00:00:00:00",
            "02-00-00-00-00-01",
            "é2:00:00:00:00:0",
        ] {
            assert!(bad.parse::<MacAddress>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_can_be_written(text in prop_oneof![any::<String>(), "([0-9a-f]{2}:){5}[0-9a-f]{2}"]) {
            if let Ok(address) = text.parse::<MacAddress>() {
                prop_assert_eq!(address.to_string(), text.to_ascii_lowercase());
            }
        }
    }
}
