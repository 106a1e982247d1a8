//! The network of a container.

use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use super::size;
use crate::network::{Driver, Egress, HostEntry, MacAddress, Mode, POOL, Ports, Prefix, Publish};

/// Options of `fcvm podman run` for its network.
#[derive(Debug, Clone, clap::Args)]
pub struct Network {
    /// How the VM reaches others, and they it [default: bridged as root, else rootless]
    #[arg(long, visible_alias = "net", value_enum, env = "FCVM_NETWORK", value_name = "MODE")]
    pub network: Option<Mode>,
    /// What a rootless network is made by [default: the first that is installed]
    #[arg(long, value_enum, env = "FCVM_ROOTLESS_DRIVER", value_name = "DRIVER")]
    pub rootless_driver: Option<Driver>,
    /// Publish ports of the container, or ranges of them. Without an address at the VM's own of the host's
    /// loopback addresses, which fcvm port tells; without a port of the host at any that is free
    #[arg(short, long, value_name = "[[HOSTIP:]HOSTPORT:]PORT[/tcp|udp]")]
    pub publish: Vec<Publish>,
    /// Publish all ports that the image exposes, each at any port that is free
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// DNS resolver, in place of the host's
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,
    /// Domain in which short names are looked up, in place of the host's; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<SearchDomain>,
    /// Option of the resolver, as in resolv.conf(5)
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<DnsOption>,
    /// A name and its address; host-gateway for that of this machine
    #[arg(long, value_name = "NAME:IP")]
    pub add_host: Vec<HostEntry>,
    /// TCP ports of this machine's loopback that the container reaches at host.containers.internal
    #[arg(long, value_delimiter = ',', value_name = "PORT[-PORT],…")]
    pub forward_localhost: Vec<Ports>,
    /// Where the container may begin conversations: allow, deny, or a list of networks, addresses and names;
    /// *.NAME for all below a name [default: allow]
    #[arg(long, value_name = "allow|deny|LIST")]
    pub egress: Option<Egress>,
    /// Hardware address of the VM's interface [default: made of its id]
    #[arg(long, value_name = "MAC")]
    pub mac_address: Option<MacAddress>,
    /// Address of the VM in the pool of bridged networks: the third of each four
    #[arg(long, value_name = "IP")]
    pub ip: Option<Ipv4Addr>,
    /// Longest packet, in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..=65520))]
    pub mtu: Option<u16>,
    /// Bytes a second that the container sends at most, and as many that it receives
    #[arg(long, value_name = "SIZE")]
    pub bandwidth: Option<Bandwidth>,
    /// What the networks of bridged VMs are taken from: four addresses each
    #[arg(long, env = "FCVM_NETWORK_POOL", default_value_t = Pool(POOL), value_name = "NETWORK")]
    pub network_pool: Pool,
    /// Give the container this machine's variables of proxies: http_proxy, no_proxy and the like
    #[arg(
        long,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        value_name = "WHETHER"
    )]
    pub http_proxy: bool,
}

/// A domain, or `.` for none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchDomain(pub String);

impl FromStr for SearchDomain {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (1..=253).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a domain has letters, digits, `-`, `_` and `.`: example.com")
        }
    }
}

/// An option of the resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsOption(pub String);

impl FromStr for DnsOption {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err("an option is one word: ndots:2")
        }
    }
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth(pub u64);

impl Bandwidth {
    /// A packet of the longest fits in a second of it.
    const LEAST: u64 = 64 << 10;
    /// More is no limit.
    const MOST: u64 = 100 << 30;
}

impl FromStr for Bandwidth {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = size::parse(text).ok_or("a rate is a number and a unit, in a second: 10m, 1g")?;
        if bytes < Self::LEAST {
            return Err(
                "a network needs 64 KiB a second at least (a number without a unit is bytes: write 10m)",
            );
        }
        if bytes > Self::MOST {
            return Err("a limit is 100 GiB a second at most");
        }
        Ok(Self(bytes))
    }
}

/// A network from which those of bridged VMs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool(pub Prefix);

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pool: Prefix = text.parse()?;
        if !pool.address.is_ipv4() || !(8..=30).contains(&pool.length) {
            return Err(format!("`{pool}` is no pool: write a network of IPv4 from /8 to /30, as {POOL}"));
        }
        Ok(Self(pool))
    }
}

impl std::fmt::Display for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use clap::{Parser as _, error::ErrorKind};

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        network: Network,
    }

    fn parse(arguments: &[&str]) -> Result<Network, clap::Error> {
        Program::try_parse_from([&["x"], arguments].concat()).map(|program| program.network)
    }

    #[test]
    fn values_are_checked() {
        for bad in [
            "--publish=0",
            "--network=other",
            "--rootless-driver=other",
            "--dns=example.com",
            "--dns-search=a b",
            "--dns-search=",
            "--dns-option=a b",
            "--add-host=x",
            "--forward-localhost=1,,2",
            "--forward-localhost=0",
            "--egress=",
            "--mac-address=1",
            "--ip=::1",
            "--mtu=575",
            "--mtu=65521",
            "--bandwidth=10",
            "--bandwidth=101g",
            "--network-pool=10.0.0.0/31",
            "--network-pool=0.0.0.0/0",
            "--network-pool=fd00::/16",
            "--http-proxy=perhaps",
        ] {
            let kind = parse(&[bad]).unwrap_err().kind();
            assert!(matches!(kind, ErrorKind::ValueValidation | ErrorKind::InvalidValue), "{bad}: {kind:?}");
        }
    }

    #[test]
    fn lists_and_proxies_are_read() {
        let network = parse(&["--forward-localhost=80,8000-8010", "--forward-localhost", "5432"]).unwrap();
        let shown: Vec<_> = network.forward_localhost.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["80", "8000-8010", "5432"]);
        assert!(network.http_proxy && parse(&["--http-proxy"]).unwrap().http_proxy);
        assert!(!parse(&["--http-proxy=false"]).unwrap().http_proxy);
    }
}
