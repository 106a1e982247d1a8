//! What is asked of a network, as users write it.

mod egress;
mod host;
mod mac;
mod port;
mod prefix;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};

pub use egress::{Destination, Egress};
pub use host::HostEntry;
pub use mac::MacAddress;
pub(super) use port::in_port;
pub use port::{HostPort, Ports, Protocol, Publish};
pub use prefix::Prefix;

/// Where the networks of bridged VMs are taken from unless told otherwise.
pub const POOL: Prefix = Prefix { address: IpAddr::V4(Ipv4Addr::new(10, 231, 0, 0)), length: 16 };

/// How a VM reaches others, and they it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Translated by the host's kernel, for root
    Bridged,
    /// By a process of the user
    Rootless,
    /// Not at all
    None,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bridged => "bridged",
            Self::Rootless => "rootless",
            Self::None => "none",
        })
    }
}

/// The process behind a rootless network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// pasta, of passt
    Pasta,
    /// slirp4netns
    Slirp4netns,
    /// passt, behind QEMU's socket: without a tap
    Passt,
}

impl Driver {
    /// All of them, the better before.
    pub const ALL: [Self; 3] = [Self::Pasta, Self::Slirp4netns, Self::Passt];
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As their programs are called.
        f.pad(match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
            Self::Passt => "passt",
        })
    }
}

/// All that is asked of a VM's network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// How.
    pub mode: Mode,
    /// By which process, in a rootless one.
    pub driver: Driver,
    /// Ports.
    pub publish: Vec<Publish>,
    /// Whether the ports that the image exposes are published too, each at any port of the host's.
    pub publish_all: bool,
    /// Resolvers; the host's where there are none.
    pub dns: Vec<IpAddr>,
    /// Domains in which short names are looked up; the host's where `None`.
    pub dns_search: Option<Vec<String>>,
    /// Options of the resolver, as in `resolv.conf`.
    pub dns_options: Vec<String>,
    /// More names, and their addresses.
    pub hosts: Vec<(String, IpAddr)>,
    /// TCP ports of the host's loopback that the guest reaches at its gateway.
    pub forward_localhost: Vec<Ports>,
    /// Where the guest may go.
    pub egress: Egress,
    /// Of the guest's interface; made of the VM's id where none is given.
    pub mac: Option<MacAddress>,
    /// Of the VM's end of its network with the host, in the pool of bridged ones.
    pub address: Option<Ipv4Addr>,
    /// The longest packet, in bytes; as the uplink has it where none is given.
    pub mtu: Option<u16>,
    /// How much a guest may send, and receive, in bytes a second.
    pub bandwidth: Option<u64>,
    /// What the networks of bridged VMs are taken from.
    pub pool: Prefix,
}

impl Request {
    /// No network.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Mode::None, Driver::Pasta)
    }

    /// A network of that kind of which nothing more is asked.
    #[must_use]
    pub fn new(mode: Mode, driver: Driver) -> Self {
        Self {
            mode,
            driver,
            publish: Vec::new(),
            publish_all: false,
            dns: Vec::new(),
            dns_search: None,
            dns_options: Vec::new(),
            hosts: Vec::new(),
            forward_localhost: Vec::new(),
            egress: Egress::default(),
            mac: None,
            address: None,
            mtu: None,
            bandwidth: None,
            pool: POOL,
        }
    }
}
