//! `fcvm stop`.

use std::str::FromStr;

/// Stop VMs: the container is asked to end, and killed where it does not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids or beginnings of ids
    #[arg(required_unless_present = "all", value_name = "VM")]
    pub vms: Vec<String>,
    /// All that run
    #[arg(short, long, conflicts_with = "vms")]
    pub all: bool,
    /// How long a container has before it is killed; -1 for ever
    #[arg(short, long, default_value = "10", value_name = "SECONDS", allow_negative_numbers = true)]
    pub time: Grace,
}

/// How many seconds a container has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grace(pub u32);

impl FromStr for Grace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<i64>() {
            Ok(-1) => Ok(Self(u32::MAX)),
            Ok(seconds) => u32::try_from(seconds).map(Self).map_err(|_| "no container has that much time"),
            Err(_) => Err("a number of seconds, or -1"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_for_ever() {
        assert_eq!("-1".parse(), Ok(Grace(u32::MAX)));
        assert_eq!("0".parse(), Ok(Grace(0)));
        for bad in ["", "-2", "1s", "99999999999"] {
            assert!(bad.parse::<Grace>().is_err(), "{bad}");
        }
    }
}
