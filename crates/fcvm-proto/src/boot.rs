//! The boot plan: everything the host wants of this guest, in one message.

use crate::{Program, TerminalSize, Volume};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The host's answer to [`Hello`](crate::Hello).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootPlan {
    /// Who this guest is.
    pub identity: Identity,
    /// Wall clock of the host, in nanoseconds since 1970-01-01 UTC.
    pub time_unix_nanos: u64,
    /// Random bytes for the guest's pool: credited where the kernel lets the agent do it.
    pub entropy: Vec<u8>,
    /// Names and resolvers.
    pub network: Network,
    /// What to mount of the host, before the job.
    pub volumes: Vec<Volume>,
    /// What to do once the guest is ready.
    pub job: Job,
}

/// What makes this guest different from every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The VM's id: 32 lower-case hex digits. Also the machine id.
    pub id: String,
    /// The VM's name as the user knows it.
    pub name: String,
    /// Host name of guest and container.
    pub hostname: String,
}

/// The guest's view of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Lines for `/etc/hosts` beyond loopback and the guest's own name: address, name.
    pub hosts: Vec<(String, String)>,
    /// Addresses of DNS resolvers, the first to be asked first.
    pub dns: Vec<String>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// Options of the resolver, as `resolv.conf` has them.
    pub dns_options: Vec<String>,
    /// Interfaces beside loopback.
    pub interfaces: Vec<Interface>,
}

/// A network interface of the guest. What is not here is as the kernel makes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// By which the guest knows it.
    pub mac: [u8; 6],
    /// The longest packet, in bytes; as the device has it where none is given.
    pub mtu: Option<u32>,
    /// Its addresses: these and no others, but for those that the kernel makes of the link.
    pub addresses: Vec<Address>,
    /// Where it leads, besides the networks of its addresses.
    pub routes: Vec<Route>,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// It.
    pub address: IpAddr,
    /// How many bits of the address are the network's, to which the interface leads.
    pub prefix: u8,
}

/// Where packets go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The first address of the network to which it leads; unspecified for all there are.
    pub destination: IpAddr,
    /// How many bits of the address are the network's.
    pub prefix: u8,
    /// Who passes packets on; on the link itself where nobody does.
    pub gateway: Option<IpAddr>,
}

/// What the guest is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Run a container.
    Container(Box<Container>),
    /// Make an image disk with the guest's own Podman: the fallback for archives
    /// that the host's writer does not understand, and its oracle in tests. The
    /// last two disks are the archive (read-only, raw) and a fresh ext4 to fill.
    BuildImage,
    /// Make a container, and tell when it only lacks its program: [`Stage::Waits`](crate::Stage::Waits). It has
    /// that of [`ToGuest::Run`](crate::ToGuest::Run), for which machines that go on from this one wait as well.
    Prepare(Box<Container>),
}

/// A container, in Podman's terms. The texts of options with a syntax of their
/// own (`tmpfs`, `ulimits`, …) are Podman's and reach it unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// Image id in the image disk's store: 64 hex digits.
    pub image: String,
    /// Command and arguments; empty for the image's own.
    pub command: Vec<String>,
    /// Replaces the image's entry point: a program or a JSON array; empty clears it.
    pub entrypoint: Option<String>,
    /// Environment: name, value.
    pub env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub workdir: Option<String>,
    /// `USER[:GROUP]`, names or numbers.
    pub user: Option<String>,
    /// Labels: name, value.
    pub labels: Vec<(String, String)>,
    /// All capabilities, all devices, no confinement (inside the VM).
    pub privileged: bool,
    /// Root file system read-only.
    pub read_only: bool,
    /// `PATH[:OPTIONS]` each.
    pub tmpfs: Vec<String>,
    /// `--volume` each: where the guest has it, where the container shall, options.
    pub volumes: Vec<String>,
    /// `--mount` each.
    pub mounts: Vec<String>,
    /// Volumes of Podman's own to be made first, which it fills with what the image has at their place:
    /// their names, and which of the plan's volumes they are.
    pub filled_volumes: Vec<(String, u16)>,
    /// Capabilities added.
    pub cap_add: Vec<String>,
    /// Capabilities dropped.
    pub cap_drop: Vec<String>,
    /// `NAME=SOFT[:HARD]` each.
    pub ulimits: Vec<String>,
    /// Whether the host opens a [`Port::Stdin`](crate::Port::Stdin) stream.
    pub interactive: bool,
    /// A terminal of that size for the container; it has no error output then.
    pub terminal: Option<TerminalSize>,
    /// Whether it is on the scratch disk already, as it was when that was copied, and starts again: what
    /// else is said here of how it is to be made has been said before.
    pub exists: bool,
    /// What one that exists runs, where it was made before that was known.
    pub program: Option<Program>,
}
