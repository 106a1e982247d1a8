//! `fcvm port`.

use std::{fmt, str::FromStr};

use crate::network::{Ports, Protocol};

/// Print where the host listens for ports of VMs.
///
/// A line for each published port, or of one only the host's address.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id or beginning of an id
    #[arg(required_unless_present = "all", value_name = "VM")]
    pub vm: Option<String>,
    /// Only that port of the VM
    #[arg(value_name = "PORT[/PROTO]")]
    pub port: Option<GuestPort>,
    /// All VMs that run
    #[arg(short, long, conflicts_with_all = ["vm", "port"])]
    pub all: bool,
}

/// A port of a guest: `80`, `80/tcp` or `53/udp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestPort {
    /// Its number.
    pub number: u16,
    /// TCP where none is given.
    pub protocol: Protocol,
}

impl FromStr for GuestPort {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a port is a number up to 65535, perhaps with /tcp or /udp behind it";
        let (number, protocol) = match text.split_once('/') {
            None => (text, Protocol::default()),
            Some((number, protocol)) => (number, protocol.parse().map_err(|_| WRONG)?),
        };
        match number.parse() {
            Ok(Ports { first, last }) if first == last => Ok(Self { number: first, protocol }),
            _ => Err(WRONG),
        }
    }
}

impl fmt::Display for GuestPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_numbers_with_a_protocol() {
        for (text, shown) in [("80", "80/tcp"), ("65535/tcp", "65535/tcp"), ("53/udp", "53/udp")] {
            assert_eq!(text.parse::<GuestPort>().unwrap().to_string(), shown);
        }
        for bad in ["", "0", "65536", "-1", "80/", "80/sctp", "/tcp", "http", "80/tcp/x"] {
            assert!(bad.parse::<GuestPort>().is_err(), "{bad}");
        }
    }
}
