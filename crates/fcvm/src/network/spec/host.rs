//! `--add-host`: names that the guest knows besides those of DNS.

use std::{fmt, net::IpAddr, str::FromStr};

use crate::network::layout::GATEWAY;

/// The address of the gateway, in Podman's and Docker's word.
const HOST_GATEWAY: &str = "host-gateway";

/// A name and its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEntry {
    /// As `/etc/hosts` has it.
    pub name: String,
    /// `host-gateway` has become the gateway's.
    pub address: IpAddr,
}

impl FromStr for HostEntry {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no name and address: write db:192.0.2.1 or host:{HOST_GATEWAY}");
        let (name, address) = text.split_once(':').ok_or_else(wrong)?;
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = match address {
            HOST_GATEWAY => GATEWAY.into(),
            _ => bare.parse().map_err(|_| wrong())?,
        };
        // A line of a file is made of it.
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(allowed) {
            return Err(format!("`{name}` is no name of a host: it has letters, digits, `-`, `_` and `.`"));
        }
        Ok(Self { name: name.to_owned(), address })
    }
}

impl fmt::Display for HostEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.address)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_is_a_name_and_an_address() {
        for (text, shown) in [
            ("db:192.0.2.1", "db:192.0.2.1"),
            ("db.example.com:2001:db8::1", "db.example.com:2001:db8::1"),
            ("db:[2001:db8::1]", "db:2001:db8::1"),
            ("host.docker.internal:host-gateway", "host.docker.internal:10.0.2.2"),
        ] {
            assert_eq!(text.parse::<HostEntry>().unwrap().to_string(), shown);
        }
        for bad in
            ["", "db", "db:", ":192.0.2.1", "db:localhost", "a b:192.0.2.1", "a\nb:192.0.2.1", "db:[::1"]
        {
            assert!(bad.parse::<HostEntry>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_one_word(text in prop_oneof![any::<String>(), r"\PC{0,9}:[0-9a-f.:]{0,9}"]) {
            if let Ok(host) = text.parse::<HostEntry>() {
                prop_assert!(!host.name.contains(|c: char| c.is_whitespace() || c.is_control()));
                prop_assert_eq!(host.to_string().parse::<HostEntry>(), Ok(host));
            }
        }
    }
}
