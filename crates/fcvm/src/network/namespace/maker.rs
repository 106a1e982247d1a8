//! The maker's side.

use std::{
    env,
    ffi::CString,
    fs, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::ExitCode,
};

use rustix::thread::{UnshareFlags, set_name};

use super::{Answer, NAME, Order};
use crate::{
    network::{
        denied,
        layout::{DNS, GATEWAY, GATEWAY_MAC, LOG_GROUP, TAP, UPLINK},
        links::Links,
        nft::{self, Place},
    },
    process::{messages, sandbox, unshare},
};

/// Longest order, in bytes: its rules name each published port and each destination.
const LONGEST: usize = 4 << 20;

/// Whether this process was started to make a namespace.
#[must_use]
pub fn is_maker() -> bool {
    env::args_os().next().is_some_and(|name| name == NAME)
}

/// Makes a namespace, and stays in it until its owner has it.
#[must_use]
pub fn make() -> ExitCode {
    // It was started as `/proc/self/exe`, which is no name; without one it works as well.
    set_name(c"fcvm-network").ok();
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    let worked = work(socket)
        .or_else(|error| messages::send(socket, &serde_json::to_vec(&Answer::Failed(error))?, &[]));
    if worked.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn work(socket: BorrowedFd<'_>) -> Result<(), String> {
    let told = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    let mut buffer = vec![0; LONGEST];
    let gone = || "its owner has gone".to_owned();
    let (length, _) = messages::receive(socket, &mut buffer).map_err(told("order"))?.ok_or_else(gone)?;
    let order: Order = serde_json::from_slice(&buffer[..length]).map_err(|error| error.to_string())?;
    let namespaces = enter(&order).map_err(told("unshare"))?;
    let mut taps = vec![TAP];
    taps.extend(order.uplink.as_ref().and_then(|uplink| uplink.tap).map(|_| UPLINK));
    for tap in taps {
        let name = CString::new(tap).map_err(|error| error.to_string())?;
        sandbox::make_tap(&name, order.user).map_err(|errno| {
            let error = io::Error::from(errno);
            format!("make a tap by `/dev/net/tun`: {error}")
        })?;
    }
    let borrowed: Vec<_> = namespaces.iter().map(AsFd::as_fd).collect();
    answer(socket, &Answer::Made, &borrowed)?;
    messages::receive(socket, &mut buffer).map_err(told("uplink"))?.ok_or_else(gone)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(told("runtime"))?;
    runtime.block_on(furnish(&order))?;
    let (sockets, log) = sockets(&order).map_err(told("listen at the gateway"))?;
    let borrowed: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
    answer(socket, &Answer::Ready { log }, &borrowed)?;
    // Others find the namespace by this process, until the owner says that they have.
    messages::receive(socket, &mut buffer).map(drop).map_err(told("end"))
}

fn answer(socket: BorrowedFd<'_>, answer: &Answer, with: &[BorrowedFd<'_>]) -> Result<(), String> {
    let bytes = serde_json::to_vec(answer).map_err(|error| error.to_string())?;
    messages::send(socket, &bytes, with).map_err(|error| error.to_string())
}

/// Enters namespaces of its own; their descriptors, the network's last.
fn enter(order: &Order) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    if order.user == 0 {
        unshare(UnshareFlags::NEWNET)?;
    } else {
        unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET)?;
        // Who cannot drop groups may not be rid of what they forbid.
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{0} {0} 1", order.user))?;
        fs::write("/proc/self/gid_map", format!("{0} {0} 1", order.group))?;
        descriptors.push(fs::File::open("/proc/self/ns/user")?.into());
    }
    descriptors.push(fs::File::open("/proc/self/ns/net")?.into());
    Ok(descriptors)
}

/// Puts rules and addresses in it.
async fn furnish(order: &Order) -> Result<(), String> {
    let step = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {error}")
    };
    // Before there is anything to pass: neither has anything an address, nor does the machine run.
    nft::apply(&order.rules, Place::Here).await.map_err(|error| match error {
        crate::network::NetworkError::Start { program, source } => {
            format!("failed to start `{program}`: {source}")
        }
        error => error.to_string(),
    })?;
    let has_v6 = order.gateways.iter().any(|(address, _)| address.is_ipv6());
    settings(has_v6)?;
    let links = Links::open().map_err(step("rtnetlink"))?;
    links.bring_up("lo", None, None).await.map_err(step("lo"))?;
    links.bring_up(TAP, Some(order.mtu), Some(GATEWAY_MAC)).await.map_err(step(TAP))?;
    for (address, prefix) in &order.gateways {
        links.add_address(TAP, *address, *prefix).await.map_err(step(TAP))?;
    }
    if let Some(uplink) = &order.uplink {
        for (address, prefix) in &uplink.addresses {
            links.add_address(UPLINK, *address, *prefix).await.map_err(step(UPLINK))?;
        }
        links.bring_up(UPLINK, uplink.tap, None).await.map_err(step(UPLINK))?;
        for gateway in &uplink.gateways {
            links.add_default_route(*gateway).await.map_err(step("default route"))?;
        }
    }
    Ok(())
}

/// The namespace passes packets on, and takes no advice from anybody about where to.
fn settings(has_v6: bool) -> Result<(), String> {
    let ipv4 = [
        ("conf/all/forwarding", "1"),
        ("conf/default/forwarding", "1"),
        // What comes from the host's loopback goes on to the guest.
        ("conf/all/route_localnet", "1"),
        ("conf/all/accept_redirects", "0"),
        ("conf/all/send_redirects", "0"),
        ("conf/default/send_redirects", "0"),
    ];
    let ipv6 = [
        ("conf/all/forwarding", "1"),
        ("conf/all/accept_ra", "0"),
        ("conf/default/accept_ra", "0"),
        ("conf/all/accept_redirects", "0"),
        ("conf/default/accept_redirects", "0"),
    ];
    let ipv6 = ipv6.iter().filter(|_| has_v6).map(|setting| ("ipv6", setting));
    for (family, (name, value)) in ipv4.iter().map(|setting| ("ipv4", setting)).chain(ipv6) {
        let path = Path::new("/proc/sys/net").join(family).join(name);
        fs::write(&path, value).map_err(|error| format!("write `{}`: {error}", path.display()))?;
    }
    Ok(())
}

/// The sockets that the owner will serve, and whether that of refused packets is among them.
fn sockets(order: &Order) -> io::Result<(Vec<OwnedFd>, bool)> {
    let dns = SocketAddr::from((GATEWAY, DNS));
    let mut sockets: Vec<OwnedFd> = vec![UdpSocket::bind(dns)?.into(), TcpListener::bind(dns)?.into()];
    // Who cannot be told of what was refused, refuses all the same.
    let log = denied::open(LOG_GROUP).ok();
    let has_log = log.is_some();
    sockets.extend(log);
    for port in &order.listen {
        sockets.push(TcpListener::bind((GATEWAY, *port))?.into());
    }
    Ok((sockets, has_log))
}
