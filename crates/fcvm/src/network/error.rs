//! What can go wrong with networks.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use super::{Holder, Mode, Prefix, Protocol, Resource, allocate::MOST_PORTS};

/// A network cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A program that makes networks is not there, or does not start.
    #[error("failed to start `{program}`")]
    Start {
        /// Which.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of them refused.
    #[error("`{program}` failed: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// Its last words, cleaned.
        said: String,
    },
    /// The VM's namespace could not be made.
    #[error("failed to make the VM's network namespace: {what}")]
    Namespace {
        /// What failed in it.
        what: String,
    },
    /// A step of the kernel's.
    #[error("failed to {what}")]
    Kernel {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something cannot be had together.
    #[error("{what}")]
    Unsupported {
        /// What.
        what: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// The option means nothing there.
    #[error("{option} means nothing with --network {mode}")]
    Contradiction {
        /// As users write it.
        option: &'static str,
        /// The mode that was asked for.
        mode: Mode,
    },
    /// No domains, and some.
    #[error("`--dns-search .` stands for no domain at all, and alone")]
    NoSearchAndMore,
    /// Only root changes the host's network.
    #[error("--network bridged takes root")]
    BridgedNeedsRoot,
    /// More than is reasonable.
    #[error("{count} published ports are too many: {MOST_PORTS} at most")]
    TooManyPorts {
        /// How many were given.
        count: usize,
    },
    /// One port of the host for two of the guest.
    #[error("the host's port {port}/{protocol} is published twice")]
    PublishedTwice {
        /// The host's port.
        port: u16,
        /// What it speaks.
        protocol: Protocol,
    },
    /// pasta tells ports apart by their numbers alone.
    #[error(
        "the host's port {port}/{protocol} leads to the guest's {first} at one address and to {second} at another"
    )]
    OnePortTwoGuests {
        /// The host's port.
        port: u16,
        /// What it speaks.
        protocol: Protocol,
        /// A guest's port.
        first: u16,
        /// Another.
        second: u16,
    },
    /// Another VM publishes it.
    #[error("port {host}/{protocol} is published by VM `{vm}`")]
    PortOfVm {
        /// The host's address and port.
        host: SocketAddr,
        /// What it speaks.
        protocol: Protocol,
        /// The VM's name.
        vm: String,
    },
    /// Something listens there.
    #[error("port {host}/{protocol} is in use by {holder}")]
    PortInUse {
        /// The host's address and port.
        host: SocketAddr,
        /// What it speaks.
        protocol: Protocol,
        /// What does.
        holder: Holder,
    },
    /// The user may not listen there.
    #[error("this user may not listen at port {host}/{protocol}")]
    PortDenied {
        /// The host's address and port.
        host: SocketAddr,
        /// What it speaks.
        protocol: Protocol,
    },
    /// It is another machine's, or nobody's.
    #[error("this host has no address `{address}`")]
    NoAddress {
        /// The address.
        address: IpAddr,
    },
    /// All are taken.
    #[error("no {count} free ports in a row at {address}")]
    NoFreePort {
        /// How many are wanted.
        count: usize,
        /// Where.
        address: IpAddr,
    },
    /// All loopback addresses are other VMs'.
    #[error("no free loopback address for the VM's ports")]
    NoLoopback,
    /// Something that there is once only cannot be had, for another reason.
    #[error("failed to reserve {resource}")]
    Reserve {
        /// What.
        resource: Resource,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Packets of the host for others would go to VMs.
    #[error("the pool {pool} of bridged networks overlaps this host's route to {route} by `{interface}`")]
    PoolOverlaps {
        /// The pool.
        pool: Prefix,
        /// What overlaps it.
        route: Prefix,
        /// By which interface.
        interface: String,
    },
    /// All networks are taken.
    #[error("the pool {pool} of bridged networks has no free one left")]
    PoolExhausted {
        /// The pool.
        pool: Prefix,
    },
    /// `--ip` is of another network.
    #[error("the address `{address}` is not in the pool {pool} of bridged networks")]
    AddressOutside {
        /// The address.
        address: Ipv4Addr,
        /// The pool.
        pool: Prefix,
    },
    /// `--ip` is the host's end of a network, or none.
    #[error("no VM can have the address `{address}`: networks of four addresses give each the third")]
    AddressOfHost {
        /// The address.
        address: Ipv4Addr,
        /// The VM's in the same network.
        near: Ipv4Addr,
    },
    /// `--ip` is another VM's.
    #[error("the address `{address}` is in use by {holder}")]
    AddressInUse {
        /// The address.
        address: Ipv4Addr,
        /// By whom.
        holder: String,
    },
    /// The kernel would not tell.
    #[error("failed to read this host's routes")]
    Routes(#[source] io::Error),
    /// The kernel has no random numbers.
    #[error("failed to choose a port")]
    Random(#[source] io::Error),
}

impl NetworkError {
    /// A failure of a step.
    pub(super) fn kernel(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Kernel { what, source }
    }

    /// Whether it is the command line that cannot be right, whatever the host is like.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Contradiction { .. }
                | Self::NoSearchAndMore
                | Self::TooManyPorts { .. }
                | Self::PublishedTwice { .. }
                | Self::OnePortTwoGuests { .. }
        )
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Start { program, source } if source.kind() == io::ErrorKind::NotFound => {
                let package = match *program {
                    "nft" => "nftables",
                    "pasta" | "passt" => "passt",
                    program => program,
                };
                return Some(format!("install it: apt install {package}; or run the VM with --network none"));
            }
            Self::Unsupported { hint, .. } => hint,
            Self::Kernel { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "this user may not change networks here: try --network rootless, or none"
            }
            Self::Namespace { .. } => {
                "containers and hardened hosts may forbid namespaces: try --network none"
            }
            Self::Contradiction { .. } => "leave one of the two out",
            Self::BridgedNeedsRoot => "use --network rootless, which takes no privileges",
            Self::OnePortTwoGuests { .. } => "use other ports of the host, or --rootless-driver slirp4netns",
            Self::PublishedTwice { .. } => {
                "a port of the host leads to one port of the guest: choose another"
            }
            Self::PortOfVm { .. } => {
                "choose another port or address; without an address each VM has its own (`fcvm port` tells it)"
            }
            Self::PortInUse { .. } => {
                "choose another port of the host, or leave it out for any that is free: -p 80"
            }
            Self::PortDenied { host, .. } => {
                let port = host.port();
                return Some(format!(
                    "choose a port from 1024 on, or let users have lower ones: \
                     `sysctl net.ipv4.ip_unprivileged_port_start={port}`"
                ));
            }
            Self::NoAddress { .. } => "`ip address` lists the addresses there are; 0.0.0.0 is all of them",
            Self::PoolOverlaps { .. } | Self::PoolExhausted { .. } => {
                "name another with --network-pool or FCVM_NETWORK_POOL, as 10.77.0.0/16"
            }
            Self::AddressOutside { .. } => "leave --ip out, or name its pool with --network-pool",
            Self::AddressOfHost { near, .. } => return Some(format!("use --ip {near}")),
            Self::AddressInUse { .. } => "leave --ip out for one that is free",
            _ => return None,
        };
        Some(text.into())
    }
}
