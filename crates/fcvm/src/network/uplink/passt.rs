//! passt: what pasta is, behind a socket of QEMU's, where there can be no tap.

use std::{io, path::Path, process::Command};

use rustix::process::geteuid;

use super::{Process, pasta, ready::Number};
use crate::network::{
    NetworkError, Protocol,
    layout::{GATEWAY, GATEWAY_V6, GUEST, GUEST_V6, PREFIX, RESOLVER},
    plan::Plan,
    rules::Forward,
};

const PROGRAM: &str = "passt";
/// Where QEMU connects, in the VM's directory of sockets.
pub(crate) const SOCKET: &str = "passt.sock";
/// Where it writes its number once it works.
const READY: &str = "passt.pid";

/// Starts it, and waits until QEMU may connect.
///
/// # Errors
/// Where it is not installed, or cannot have a port.
pub(crate) async fn start(plan: &Plan, runtime_dir: &Path) -> Result<Process, NetworkError> {
    pasta::check(plan)?;
    if let Some(forward) =
        plan.forwards.iter().find(|forward| is_loopback(forward) && forward.record.protocol == Protocol::Udp)
    {
        return Err(NetworkError::Unsupported {
            what: format!("passt has no UDP ports at the host's loopback, as `{}`", forward.record.host),
            hint: "publish it at another address of this host, or let users have taps: chmod 666 /dev/net/tun",
        });
    }
    let failed = |source| NetworkError::Start { program: PROGRAM, source };
    let socket = runtime_dir.join(SOCKET);
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let ready = runtime_dir.join(READY);
    let number = Number::expect(&ready).map_err(failed)?;
    let mut command = Command::new(PROGRAM);
    command.args(arguments(plan)).arg("--socket").arg(&socket).arg("--pid").arg(&ready);
    if geteuid().is_root() {
        // As nobody it could not make its socket.
        command.args(["--runas", "0"]);
    }
    let process = Process::start(PROGRAM, command)?;
    crate::failpoint::reach("uplink-started");
    let (process, ()) = process.until(number.written()).await?;
    Ok(process)
}

fn arguments(plan: &Plan) -> Vec<String> {
    let mut arguments: Vec<String> = ["--foreground", "--quiet", "--no-map-gw"].map(Into::into).into();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    add("--mtu", plan.mtu.to_string());
    add("--address", GUEST.to_string());
    add("--netmask", PREFIX.to_string());
    add("--gateway", GATEWAY.to_string());
    add("--dns-forward", RESOLVER.to_string());
    if plan.has_v6 {
        add("--address", GUEST_V6.to_string());
        add("--gateway", GATEWAY_V6.to_string());
    } else {
        arguments.push("--ipv4-only".into());
    }
    // Nothing is in between that could lead to another port. Those of the loopback are fcvm's: see `by_link`.
    let elsewhere: Vec<_> = plan.forwards.iter().copied().filter(|forward| !is_loopback(forward)).collect();
    arguments.extend(pasta::ports(&elsewhere, |forward| forward.record.guest));
    arguments
}

/// Whether it is at the host's loopback.
pub(crate) fn is_loopback(forward: &Forward) -> bool {
    forward.record.host.ip().is_loopback()
}
