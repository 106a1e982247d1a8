//! pasta: connections of the namespace as sockets of a process of the user's.

use std::{fs::File, process::Command};

use super::{Place, Process, ready::Number};
use crate::{
    network::{
        NetworkError, Protocol,
        layout::{ROOTLESS, ROOTLESS_GATEWAY, ROOTLESS_GATEWAY_V6, ROOTLESS_PREFIX, ROOTLESS_V6, UPLINK},
        plan::Plan,
        rules::Forward,
    },
    process::show_namespace,
};

const PROGRAM: &str = "pasta";
/// Where it writes its number once it works: a FIFO in the VM's directory of sockets.
const READY: &str = "pasta.pid";
/// Where it finds a namespace of root's, in a view of its own of the file system.
const NAMESPACE: &str = "netns";

pub(super) async fn start(plan: &Plan, place: &Place<'_>) -> Result<Process, NetworkError> {
    check(plan)?;
    let failed = |source| NetworkError::Start { program: PROGRAM, source };
    let ready = place.runtime_dir.join(READY);
    let number = Number::expect(&ready).map_err(failed)?;
    let mut command = Command::new(PROGRAM);
    command.args(arguments(plan)).arg("--pid").arg(&ready);
    if place.namespaces.user.is_some() {
        command.arg("--userns").arg(format!("/proc/{}/ns/user", place.pid));
        command.arg("--netns").arg(format!("/proc/{}/ns/net", place.pid));
    } else {
        // It gives up root's way to another process's namespaces before it looks for this one.
        let shown = place.runtime_dir.join(NAMESPACE);
        File::create(&shown).map_err(failed)?;
        show_namespace(&mut command, place.namespaces.network.try_clone().map_err(failed)?, &shown)
            .map_err(failed)?;
        command.arg("--netns").arg(&shown);
        // As nobody it could not enter the namespace.
        command.args(["--runas", "0"]);
    }
    let process = Process::start(PROGRAM, command)?;
    crate::failpoint::reach("uplink-started");
    let (process, ()) = process.until(number.written()).await?;
    Ok(process)
}

/// What it is told of addresses and ports: nothing is reached but what is named here.
fn arguments(plan: &Plan) -> Vec<String> {
    let mut arguments: Vec<String> =
        ["--foreground", "--quiet", "--config-net", "--no-map-gw"].map(Into::into).into();
    let mut add = |option: &str, value: String| arguments.extend([option.to_owned(), value]);
    add("--ns-ifname", UPLINK.into());
    add("--mtu", plan.mtu.to_string());
    add("--address", ROOTLESS.to_string());
    add("--netmask", ROOTLESS_PREFIX.to_string());
    add("--gateway", ROOTLESS_GATEWAY.to_string());
    if plan.has_v6 {
        add("--address", ROOTLESS_V6.to_string());
        add("--gateway", ROOTLESS_GATEWAY_V6.to_string());
    }
    // Nothing of the host's loopback is in the namespace's.
    add("--tcp-ns", "none".into());
    add("--udp-ns", "none".into());
    arguments.extend(ports(&plan.forwards, |forward| forward.relay));
    if !plan.has_v6 {
        arguments.push("--ipv4-only".into());
    }
    arguments
}

/// Refuses what pasta and passt do not have: they tell ports apart by their numbers.
pub(super) fn check(plan: &Plan) -> Result<(), NetworkError> {
    let at = |forward: &Forward| (forward.record.protocol, forward.record.host.port());
    for (index, forward) in plan.forwards.iter().enumerate() {
        let host = forward.record.host;
        let other = plan.forwards[..index].iter().find(|other| {
            let both = host.ip().is_unspecified() && other.record.host.ip().is_unspecified();
            at(other) == at(forward) && !both
        });
        if let Some(other) = other {
            return Err(NetworkError::Unsupported {
                what: format!("pasta cannot listen at both `{}` and `{host}`", other.record.host),
                hint: "use another port at one of the addresses, or --rootless-driver slirp4netns",
            });
        }
    }
    Ok(())
}

/// Where pasta or passt listens, and the port that it leads to on the other side.
pub(super) fn ports(forwards: &[Forward], target: fn(&Forward) -> u16) -> Vec<String> {
    let mut arguments = Vec::new();
    for (option, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let of_protocol = |forward: &&Forward| forward.record.protocol == protocol;
        let ports: Vec<_> = forwards.iter().filter(of_protocol).collect();
        if ports.is_empty() {
            arguments.extend([option.to_owned(), "none".to_owned()]);
        }
        for forward in &ports {
            let host = forward.record.host;
            // It listens at all addresses of both families, or at one.
            let is_twin = |other: &&&Forward| {
                let other = other.record.host;
                let both = host.ip().is_unspecified() && other.ip().is_unspecified();
                both && host != other && host.port() == other.port()
            };
            let address = match ports.iter().find(is_twin) {
                Some(_) if host.is_ipv6() => continue,
                Some(_) => String::new(),
                None => format!("{}/", host.ip()),
            };
            arguments.extend([option.to_owned(), format!("{address}{}:{}", host.port(), target(forward))]);
        }
    }
    arguments
}
