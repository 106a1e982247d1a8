//! slirp4netns: a stack of TCP and IP of its own, in a process of the user's.

use std::{io, net::Ipv4Addr, os::fd::OwnedFd, path::Path, process::Command, time::Duration};

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::pipe::{PipeFlags, pipe_with};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use super::{Place, Process};
use crate::{
    network::{
        NetworkError,
        layout::{
            LONG_PACKETS, ROOTLESS, ROOTLESS_GATEWAY, ROOTLESS_GATEWAY_V6, ROOTLESS_PREFIX,
            ROOTLESS_PREFIX_V6, ROOTLESS_V6, UPLINK,
        },
        namespace,
        plan::Plan,
        rules::Forward,
    },
    process::watch,
};

const PROGRAM: &str = "slirp4netns";
/// Its API's, in the VM's directory of sockets.
const SOCKET: &str = "slirp.sock";
/// The descriptor to which it writes once it works.
const READY: i32 = 3;
/// How long it may take over a port.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer of its API, in bytes.
const LONGEST: u64 = 4096;

pub(super) async fn start(plan: &Plan, place: &Place<'_>) -> Result<Process, NetworkError> {
    let failed = |source| NetworkError::Start { program: PROGRAM, source };
    if let Some(forward) = plan.forwards.iter().find(|forward| forward.record.host.is_ipv6()) {
        return Err(NetworkError::Unsupported {
            what: format!(
                "slirp4netns does not listen at `{}`: it has no ports at IPv6 addresses",
                forward.record.host
            ),
            hint: "use --rootless-driver pasta",
        });
    }
    let socket = place.runtime_dir.join(SOCKET);
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let (ready, ready_end) =
        pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(|error| failed(error.into()))?;
    let mut command = Command::new(PROGRAM);
    // It can tell the host's loopback apart, but then keeps answers to what came from there by UDP. The rules
    // of the namespace keep the guest from it.
    command.arg("--disable-dns");
    if plan.has_v6 {
        command.arg("--enable-ipv6");
    }
    command.arg(format!("--mtu={}", mtu(plan)));
    command.arg(format!("--cidr={}/{ROOTLESS_PREFIX}", network()));
    command.arg(format!("--ready-fd={READY}"));
    command.arg("--api-socket").arg(&socket);
    if place.namespaces.user.is_some() {
        command.arg(format!("--userns-path=/proc/{}/ns/user", place.pid));
    }
    command.arg("--netns-type=path").arg(format!("/proc/{}/ns/net", place.pid)).arg(UPLINK);
    command
        .fd_mappings(vec![FdMapping { parent_fd: ready_end, child_fd: READY }])
        .map_err(|error| failed(io::Error::other(error)))?;
    let process = Process::start(PROGRAM, command)?;
    crate::failpoint::reach("uplink-started");
    let (process, ()) = process.until(written(ready)).await?;
    for forward in &plan.forwards {
        publish(&socket, forward).await?;
    }
    Ok(process)
}

/// The tap that it opens. It could give this an address itself, but of IPv6 only tells as a router does, which a
/// namespace that passes packets on does not listen to.
pub(super) fn order(plan: &Plan) -> namespace::Uplink {
    let mut addresses = vec![(ROOTLESS.into(), ROOTLESS_PREFIX)];
    let mut gateways = vec![ROOTLESS_GATEWAY.into()];
    if plan.has_v6 {
        addresses.push((ROOTLESS_V6.into(), ROOTLESS_PREFIX_V6));
        gateways.push(ROOTLESS_GATEWAY_V6.into());
    }
    namespace::Uplink { tap: Some(mtu(plan)), addresses, gateways }
}

fn mtu(plan: &Plan) -> u16 {
    plan.mtu.min(LONG_PACKETS)
}

/// The network with our address on it.
fn network() -> Ipv4Addr {
    let mask = u32::MAX << (32 - u32::from(ROOTLESS_PREFIX));
    Ipv4Addr::from_bits(ROOTLESS.to_bits() & mask)
}

async fn written(pipe: OwnedFd) -> io::Result<()> {
    let pipe = watch(pipe)?;
    let mut byte = [0; 1];
    loop {
        let mut ready = pipe.readable().await?;
        match ready.try_io(|pipe| Ok(rustix::io::read(pipe.get_ref(), &mut byte)?)) {
            Ok(Ok(1)) => return Ok(()),
            Ok(Ok(_)) => std::future::pending().await,
            Ok(Err(error)) => return Err(error),
            Err(_) => {}
        }
    }
}

/// Has it listen: a connection to its API for each request.
async fn publish(socket: &Path, forward: &Forward) -> Result<(), NetworkError> {
    let host = forward.record.host;
    let request = json!({ "execute": "add_hostfwd", "arguments": {
        "proto": forward.record.protocol.to_string(),
        "host_addr": host.ip().to_string(),
        "host_port": host.port(),
        "guest_addr": ROOTLESS.to_string(),
        "guest_port": forward.relay,
    }});
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(request.to_string().as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer).await?;
        io::Result::Ok(answer)
    };
    let failed = |said: String| NetworkError::Program { program: PROGRAM, said };
    let answer = match timeout(PATIENCE, ask).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed("it does not answer".into())),
    };
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| failed(error.to_string()))?;
    match answer["error"]["desc"].as_str() {
        None => Ok(()),
        Some(why) => Err(failed(format!("it cannot listen at `{host}`: {}", crate::output::sanitize(why)))),
    }
}
