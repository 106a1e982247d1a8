//! `--publish` and lists of ports.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    ops::RangeInclusive,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

/// What a port speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    #[default]
    Tcp,
    /// UDP
    Udp,
}

/// `--publish`: ports of the guest, and where the host listens for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The address; the VM's own loopback address where none is given.
    pub address: Option<IpAddr>,
    /// The ports there: as many as the guest's.
    pub host: HostPort,
    /// The guest's.
    pub guest: Ports,
    /// What they speak.
    pub protocol: Protocol,
}

/// Where a port of the guest is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPort {
    /// Any that is free.
    Any,
    /// These.
    Ports(Ports),
}

/// Ports from the first to the last, both included; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// The first.
    pub first: u16,
    /// The last.
    pub last: u16,
}

impl Ports {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.last).saturating_sub(self.first.into()) + 1
    }

    /// Each of them.
    #[must_use]
    pub fn iter(&self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(format!("`{text}` is no protocol of ports: tcp and udp are")),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no port: write a number from 1 to 65535, or two as 8000-8010");
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse().ok()).flatten().filter(|number| *number != 0).ok_or_else(wrong)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = Self { first: number(first)?, last: number(last)? };
        if ports.first > ports.last {
            return Err(format!("`{text}` ends before it begins: write {last}-{first}"));
        }
        Ok(ports)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// `[[HOSTIP:]HOSTPORT:]GUESTPORT[/tcp|udp]`. A host's port may be left out behind an address: `127.0.0.1::80`.
impl FromStr for Publish {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (places, protocol) = match text.split_once('/') {
            Some((places, protocol)) => (places, protocol.parse()?),
            None => (text, Protocol::default()),
        };
        let (address, ports) = places_of(places)?;
        let (host, guest) = match ports.split_once(':') {
            Some((host, guest)) => (host, guest),
            None => match address {
                None => ("", ports),
                Some(address) => {
                    let address = in_port(address);
                    return Err(format!(
                        "behind an address are the host's port, or nothing for any, and the guest's: \
                         write {address}:8080:{ports} or {address}::{ports}"
                    ));
                }
            },
        };
        let guest: Ports = guest.parse()?;
        let host = if host.is_empty() { HostPort::Any } else { HostPort::Ports(host.parse()?) };
        if let HostPort::Ports(ports) = host
            && ports.count() != guest.count()
        {
            return Err(format!(
                "the host's {ports} and the guest's {guest} differ in length: write as many of each"
            ));
        }
        Ok(Self { address, host, guest, protocol })
    }
}

/// The address, if there is one, and what is behind it.
fn places_of(text: &str) -> Result<(Option<IpAddr>, &str), String> {
    let (address, ports) = if let Some(rest) = text.strip_prefix('[') {
        let (address, ports) = rest
            .split_once(']')
            .and_then(|(address, rest)| Some((address, rest.strip_prefix(':')?)))
            .ok_or("behind an address in brackets are two ports: write [::1]:8080:80 or [::1]::80")?;
        let address: Ipv6Addr =
            address.parse().map_err(|_| format!("`{address}` is no IPv6 address: write [::1]:8080:80"))?;
        // What is IPv4 in truth is told and compared as such.
        (IpAddr::from(address).to_canonical(), ports)
    } else {
        match text.split(':').count() {
            0..=2 => return Ok((None, text)),
            3 => {}
            _ => return Err("an IPv6 address is in brackets: write [::1]:8080:80".into()),
        }
        let (address, ports) = text.split_once(':').unwrap_or_default();
        // As with Podman, no address is none in particular.
        if address.is_empty() {
            return Ok((None, ports));
        }
        let known = address.parse::<std::net::Ipv4Addr>();
        (known.map_err(|_| format!("`{address}` is no address: write 127.0.0.1:8080:80"))?.into(), ports)
    };
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    if address.is_multicast() || broadcast {
        return Err(format!("nobody can listen at `{address}`: it is the address of many"));
    }
    Ok((Some(address), ports))
}

/// An address as it is written before a port.
pub(in crate::network) fn in_port(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(address) = self.address {
            write!(f, "{}:", in_port(address))?;
        }
        match self.host {
            HostPort::Ports(ports) => write!(f, "{ports}:")?,
            HostPort::Any if self.address.is_some() => f.write_str(":")?,
            HostPort::Any => {}
        }
        write!(f, "{}/{}", self.guest, self.protocol)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn publish(text: &str) -> Publish {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn ports_are_published_as_podman_has_it() {
        for (text, shown) in [
            ("80", "80/tcp"),
            (":80", "80/tcp"),
            ("::80", "80/tcp"),
            ("8080:80", "8080:80/tcp"),
            (":8080:80/UDP", "8080:80/udp"),
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::53/udp", "127.0.0.1::53/udp"),
            ("0.0.0.0:8000-8010:80-90", "0.0.0.0:8000-8010:80-90/tcp"),
            ("80-90", "80-90/tcp"),
            ("[::]:8080:80", "[::]:8080:80/tcp"),
            ("[2001:db8::1]::80", "[2001:db8::1]::80/tcp"),
            ("[::ffff:192.0.2.1]::80", "192.0.2.1::80/tcp"),
        ] {
            assert_eq!(publish(text).to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_port_is_said() {
        for (text, why) in [
            ("", "`` is no port"),
            ("0", "`0` is no port"),
            ("65536", "`65536` is no port"),
            ("+80", "`+80` is no port"),
            ("80:", "`` is no port"),
            ("0:80", "`0` is no port"),
            ("80-", "`80-` is no port"),
            ("90-80", "write 80-90"),
            ("8000-8010:80", "differ in length"),
            ("80/sctp", "`sctp`"),
            ("80/", "tcp and udp"),
            ("localhost:8080:80", "`localhost` is no address"),
            ("127.0.0.1:80", "`127.0.0.1` is no port"),
            ("::1:8080:80", "brackets"),
            ("[::1]:80", "[::1]::80"),
            ("[::1]80", "brackets"),
            ("[127.0.0.1]:1:1", "IPv6"),
            ("[fe80::1%eth0]:1:1", "IPv6"),
            ("224.0.0.1:1:1", "many"),
            ("255.255.255.255:1:1", "many"),
        ] {
            let error = text.parse::<Publish>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    fn ports() -> impl Strategy<Value = Ports> {
        (1..=u16::MAX, 1..=u16::MAX).prop_map(|(a, b)| Ports { first: a.min(b), last: a.max(b) })
    }

    fn published() -> impl Strategy<Value = Publish> {
        let address = proptest::option::of(any::<IpAddr>().prop_map(|address| address.to_canonical()));
        (address, ports(), any::<Option<u16>>(), any::<bool>()).prop_map(|(address, guest, first, tcp)| {
            let address =
                address.filter(|address| !address.is_multicast() && *address != IpAddr::from([u8::MAX; 4]));
            let length = guest.last - guest.first;
            let host = match first
                .map(|first| first.max(1))
                .and_then(|first| Some((first, first.checked_add(length)?)))
            {
                Some((first, last)) => HostPort::Ports(Ports { first, last }),
                None => HostPort::Any,
            };
            let protocol = if tcp { Protocol::Tcp } else { Protocol::Udp };
            Publish { address, host, guest, protocol }
        })
    }

    proptest! {
        #[test]
        fn what_is_published_can_be_written_and_read(publish in published()) {
            prop_assert_eq!(publish.to_string().parse::<Publish>(), Ok(publish));
        }

        #[test]
        fn hostile_ports_are_refused_or_mean_what_they_show(
            text in prop_oneof![any::<String>(), r"[\[\]:./%0-9a-f-]{0,40}(/(tcp|udp))?"]
        ) {
            if let Ok(publish) = text.parse::<Publish>() {
                prop_assert!(publish.guest.first > 0 && publish.guest.first <= publish.guest.last);
                prop_assert_eq!(publish.to_string().parse::<Publish>(), Ok(publish));
            }
        }
    }
}
