//! A VM's network namespace, and the process that makes it.
//!
//! ```text
//!  owner                                       maker: the same program, named `fcvm-network`
//!    | -- Order: what is to be in it, as JSON --> |
//!    | <------------- Answer::Made, namespaces -- |  with a tap for the machine
//!    | -- the uplink is there, where it is one -> |
//!    |    that the owner makes                    |  rules, addresses, sockets
//!    | <----------------- Answer::Ready, sockets -|
//!    | -- end of the socket --------------------> |  exits
//! ```
//! A process of its own, since only one with a single thread can make a user namespace, which an ordinary user
//! needs. The namespace lives as long as somebody has a descriptor of it, or is in it: the owner, the
//! hypervisor, pasta. What is in it goes with it.
//!
//! Others find the namespaces by a process in them: by the maker, and later by one that only visits.

mod maker;

use std::{
    io,
    net::{IpAddr, TcpListener, UdpSocket},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use rustix::{
    io::ioctl_fionbio,
    process::{Signal, getegid, geteuid},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::unix::AsyncFd;

pub use maker::{is_maker, make};

use super::NetworkError;
use crate::process::{Namespaces, die_with_parent, messages, watch};

/// The maker's name for itself.
const NAME: &str = "fcvm-network";
/// The longest message to the owner, in bytes.
const LONGEST: usize = 16 << 10;

/// What is to be in the namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// Whom the tap belongs to; where it is not root, in a user namespace with that user and group only.
    pub(super) user: u32,
    /// The user's group.
    pub(super) group: u32,
    /// The longest packets of the guest.
    pub(super) mtu: u16,
    /// The guest's gateway, by the addresses and the bits of its networks.
    pub(super) gateways: Vec<(IpAddr, u8)>,
    /// Addresses of the uplink and its gateways, where it is not for a process to give them.
    pub(super) uplink: Option<Uplink>,
    /// nftables' commands.
    pub(super) rules: Value,
    /// TCP ports of the gateway that are listened to, beside DNS.
    pub(super) listen: Vec<u16>,
}

/// The uplink as it is to be in the namespace.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Uplink {
    /// A tap, which the maker makes, with packets of this length; else the owner makes the uplink.
    pub(super) tap: Option<u16>,
    pub(super) addresses: Vec<(IpAddr, u8)>,
    pub(super) gateways: Vec<IpAddr>,
}

/// What the maker says.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The namespaces are there: the network's, and the user's before it where there is one.
    Made,
    /// All is there: the sockets for DNS by UDP and TCP, that of refused packets where there is one, and
    /// those for the ports.
    Ready { log: bool },
    /// It cannot be.
    Failed(String),
}

impl Order {
    /// One for this user.
    pub(super) fn new(mtu: u16, rules: Value) -> Self {
        let (user, group) = (geteuid().as_raw(), getegid().as_raw());
        Self { user, group, mtu, gateways: Vec::new(), uplink: None, rules, listen: Vec::new() }
    }
}

/// A process that makes a namespace.
#[derive(Debug)]
pub(super) struct Maker {
    socket: AsyncFd<OwnedFd>,
    process: tokio::process::Child,
}

/// Sockets in a namespace.
#[derive(Debug)]
pub(super) struct Sockets {
    /// For DNS.
    pub(super) udp: UdpSocket,
    /// For DNS.
    pub(super) tcp: TcpListener,
    /// What is told of refused packets.
    pub(super) log: Option<OwnedFd>,
    /// For the ports, in their order.
    pub(super) ports: Vec<TcpListener>,
}

impl Maker {
    /// Starts it, and waits for the namespace with nothing in it but a tap, which nothing leads to.
    ///
    /// # Errors
    /// Where this user may have none.
    pub(super) async fn start(
        program: &Path,
        order: &Order,
    ) -> Result<(Self, Arc<Namespaces>), NetworkError> {
        let begin = || {
            let maker = Self::spawn(program, None)?;
            messages::send(maker.socket.get_ref().as_fd(), &serde_json::to_vec(order)?, &[])?;
            io::Result::Ok(maker)
        };
        let maker = begin().map_err(|error| failed(error.to_string()))?;
        match maker.answer().await? {
            (Answer::Made, mut descriptors) => match (descriptors.pop(), descriptors.pop()) {
                (Some(network), user) => Ok((maker, Arc::new(Namespaces { user, network }))),
                (None, _) => Err(failed("it came without a descriptor".into())),
            },
            (Answer::Ready { .. } | Answer::Failed(_), _) => {
                Err(failed("it is not what was asked for".into()))
            }
        }
    }

    /// A process that makes nothing in namespaces that are there.
    ///
    /// # Errors
    /// Where they cannot be entered any more.
    pub(super) fn visit(program: &Path, namespaces: &Arc<Namespaces>) -> Result<Self, NetworkError> {
        Self::spawn(program, Some(namespaces)).map_err(|error| failed(error.to_string()))
    }

    fn spawn(program: &Path, namespaces: Option<&Arc<Namespaces>>) -> io::Result<Self> {
        let (ours, theirs) = messages::pair()?;
        let mut command = Command::new(program);
        command.arg0(NAME).stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null());
        // A terminal's Ctrl-C is for the container.
        command.process_group(0);
        die_with_parent(&mut command, Signal::KILL);
        if let Some(namespaces) = namespaces {
            namespaces.join(&mut command);
        }
        let process = tokio::process::Command::from(command).kill_on_drop(true).spawn()?;
        ioctl_fionbio(&ours, true)?;
        Ok(Self { socket: watch(ours)?, process })
    }

    /// By which others find the namespaces in `/proc`, as long as this lives.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// Has it go on: the uplink is there, where it is one that this process makes.
    ///
    /// # Errors
    /// Where it has died.
    pub(super) fn go_on(&self) -> Result<(), NetworkError> {
        messages::send(self.socket.get_ref().as_fd(), &[0], &[]).map_err(|error| failed(error.to_string()))
    }

    /// Waits until all is there.
    ///
    /// # Errors
    /// What cannot be had.
    pub(super) async fn ready(&self) -> Result<Sockets, NetworkError> {
        let (Answer::Ready { log }, descriptors) = self.answer().await? else {
            return Err(failed("it is not what was asked for".into()));
        };
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| failed("a socket is missing".into()));
        Ok(Sockets {
            udp: next()?.into(),
            tcp: next()?.into(),
            log: if log { Some(next()?) } else { None },
            ports: descriptors.map(TcpListener::from).collect(),
        })
    }

    async fn answer(&self) -> Result<(Answer, Vec<OwnedFd>), NetworkError> {
        let mut buffer = vec![0; LONGEST];
        let received = loop {
            let mut ready = self.socket.readable().await.map_err(|error| failed(error.to_string()))?;
            // Unless it was not ready after all.
            if let Ok(received) =
                ready.try_io(|socket| messages::receive(socket.get_ref().as_fd(), &mut buffer))
            {
                break received;
            }
        };
        match received {
            Ok(Some((length, descriptors))) => match serde_json::from_slice(&buffer[..length]) {
                Ok(Answer::Failed(why)) => Err(failed(why)),
                Ok(answer) => Ok((answer, descriptors)),
                Err(error) => Err(failed(error.to_string())),
            },
            Ok(None) => Err(failed("its maker died".into())),
            Err(error) => Err(failed(error.to_string())),
        }
    }
}

fn failed(what: String) -> NetworkError {
    NetworkError::Namespace { what }
}
