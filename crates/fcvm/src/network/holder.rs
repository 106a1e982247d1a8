//! Who listens at a port of this host: from the kernel's tables of sockets to a process.

use std::{fmt, net::SocketAddr, path::Path};

use procfs::{
    net::{TcpState, tcp, tcp6, udp, udp6, unix},
    process::{FDTarget, all_processes},
};

use super::{Protocol, reservations::SIGN};
use crate::output::sanitize;

/// What has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// A process.
    Process {
        /// Its number.
        pid: i32,
        /// The name of its program.
        program: String,
    },
    /// A process of another user, whose files are not ours to see.
    User {
        /// The user's number.
        uid: u32,
    },
    /// The kernel does not tell.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, program } => write!(f, "`{program}` (PID {pid})"),
            Self::User { uid } => write!(f, "a process of user {uid}"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// A socket of the kernel's tables.
struct Socket {
    local: SocketAddr,
    inode: u64,
    uid: u32,
    listens: bool,
}

impl Holder {
    /// Who has a port, so that nobody else can.
    #[must_use]
    pub fn of(host: SocketAddr, protocol: Protocol) -> Self {
        let mut found: Vec<_> =
            sockets(protocol).into_iter().filter(|socket| is_in_the_way(socket.local, host)).collect();
        // One that listens rather than a connection that it has accepted.
        found.sort_by_key(|socket| !socket.listens);
        let Some(socket) = found.first() else {
            return sign(host, protocol).and_then(owner).unwrap_or(Self::Unknown);
        };
        owner(socket.inode).unwrap_or(Self::User { uid: socket.uid })
    }
}

/// The sign of another fcvm's port, which does not listen itself.
fn sign(host: SocketAddr, protocol: Protocol) -> Option<u64> {
    let is_its = |name: &Path| {
        let place =
            name.to_str().and_then(|name| name.strip_prefix('@')?.strip_prefix(SIGN)?.split_once('/'));
        place.is_some_and(|(other, speaks)| {
            let same = speaks.parse() == Ok(protocol);
            same && other.parse().is_ok_and(|other| is_in_the_way(other, host))
        })
    };
    let all = unix().ok()?;
    all.into_iter().find(|entry| entry.path.as_deref().is_some_and(is_its)).map(|entry| entry.inode)
}

fn is_in_the_way(other: SocketAddr, wanted: SocketAddr) -> bool {
    let (a, b) = (other.ip().to_canonical(), wanted.ip().to_canonical());
    other.port() == wanted.port() && (a == b || a.is_unspecified() || b.is_unspecified())
}

fn sockets(protocol: Protocol) -> Vec<Socket> {
    match protocol {
        Protocol::Tcp => {
            let all = [tcp(), tcp6()].into_iter().flatten().flatten();
            all.map(|entry| Socket {
                local: entry.local_address,
                inode: entry.inode,
                uid: entry.uid,
                listens: entry.state == TcpState::Listen,
            })
            .collect()
        }
        Protocol::Udp => {
            let all = [udp(), udp6()].into_iter().flatten().flatten();
            all.map(|entry| Socket {
                local: entry.local_address,
                inode: entry.inode,
                uid: entry.uid,
                listens: true,
            })
            .collect()
        }
    }
}

/// The process that has a socket, of those whose files we may see.
fn owner(inode: u64) -> Option<Holder> {
    // A socket that waits for its last packets is nobody's.
    if inode == 0 {
        return Some(Holder::Unknown);
    }
    let mut processes = all_processes().ok()?.flatten();
    let process = processes.find(|process| {
        let mut files = process.fd().into_iter().flatten().flatten();
        files.any(|file| matches!(file.target, FDTarget::Socket(of) if of == inode))
    })?;
    let program = process.stat().ok()?.comm;
    // Anybody chooses the names of programs.
    Some(Holder::Process { pid: process.pid, program: sanitize(&program) })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_listener_is_told_by_process_and_program() {
        let program = procfs::process::Process::myself().unwrap().stat().unwrap().comm;
        let own = Holder::Process { pid: std::process::id().cast_signed(), program };
        let any = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = any.local_addr().unwrap().port();
        // It is in the way at every address.
        assert_eq!(Holder::of(SocketAddr::from(([127, 0, 0, 9], port)), Protocol::Tcp), own);
        let one = UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = one.local_addr().unwrap().port();
        assert_eq!(Holder::of(SocketAddr::from(([0, 0, 0, 0], port)), Protocol::Udp), own);
        drop((any, one));
        assert_eq!(Holder::of(SocketAddr::from(([0, 0, 0, 0], 1)), Protocol::Tcp), Holder::Unknown);
    }
}
