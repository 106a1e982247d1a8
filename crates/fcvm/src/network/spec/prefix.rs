//! Networks by address and length.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

/// A network by address and length, without bits of a host: `10.0.0.0/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// How many bits of it are the network's.
    pub length: u8,
}

impl Prefix {
    /// The network of that length which an address is in; one of the address alone where it is no longer.
    #[must_use]
    pub fn of(address: IpAddr, length: u8) -> Self {
        let length = length.min(bits(address));
        let kept = |bits: u32| u128::MAX.checked_shl(bits - u32::from(length)).unwrap_or(0);
        let address = match address {
            // The mask's upper bits are none of an IPv4 address.
            IpAddr::V4(address) => {
                let mask = u32::try_from(kept(32) & u128::from(u32::MAX)).expect("it has 32 bits");
                IpAddr::V4((u32::from(address) & mask).into())
            }
            IpAddr::V6(address) => IpAddr::V6((u128::from(address) & kept(128)).into()),
        };
        Self { address, length }
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::of(address, self.length) == *self
    }

    /// Whether an address is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.length <= other.length { self.contains(other.address) } else { other.contains(self.address) }
    }
}

/// How many bits an address of that kind has.
fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl FromStr for Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no network: write 10.0.0.0/8 or fd00::/64");
        let (address, length) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        let length = length.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
        if length > bits(address) {
            return Err(format!("`{text}` is no network: an address has {} bits", bits(address)));
        }
        let prefix = Self::of(address, length);
        if prefix.address != address {
            return Err(format!("`{text}` has bits of a host: write {prefix}"));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl TryFrom<String> for Prefix {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_no_bits_of_a_host() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.1/32", "::/0", "2001:db8::/32", "::1/128"] {
            assert_eq!(prefix(text).to_string(), text);
        }
        for (bad, why) in [
            ("10.0.0.0", "10.0.0.0/8"),
            ("10.0.0.0/33", "32 bits"),
            ("::/129", "128 bits"),
            ("10.0.0.1/8", "write 10.0.0.0/8"),
            ("::1/64", "write ::/64"),
            ("10.0.0.0/+8", "no network"),
            ("10.0.0.0/", "no network"),
            ("/8", "no network"),
            ("10.0/8", "no network"),
        ] {
            let error = bad.parse::<Prefix>().unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn networks_overlap_where_one_is_in_the_other() {
        for (a, b, overlap) in [
            ("10.0.0.0/8", "10.1.0.0/16", true),
            ("10.0.0.0/8", "11.0.0.0/8", false),
            ("0.0.0.0/0", "192.0.2.1/32", true),
            ("0.0.0.0/0", "::/0", false),
            ("2001:db8::/32", "2001:db8:1::/48", true),
        ] {
            assert_eq!((prefix(a).overlaps(&prefix(b)), prefix(b).overlaps(&prefix(a))), (overlap, overlap));
        }
    }

    proptest! {
        #[test]
        fn a_network_contains_what_it_was_made_of(address: IpAddr, length: u8) {
            let network = Prefix::of(address, length);
            prop_assert!(network.contains(address));
            prop_assert_eq!(network.to_string().parse::<Prefix>(), Ok(network));
        }

        #[test]
        fn hostile_networks_do_not_panic(text in prop_oneof![any::<String>(), "[0-9a-f:./]{0,45}"]) {
            if let Ok(prefix) = text.parse::<Prefix>() {
                prop_assert_eq!(prefix.to_string().parse::<Prefix>(), Ok(prefix));
            }
        }
    }
}
