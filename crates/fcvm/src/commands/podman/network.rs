//! The network of `fcvm podman run`.

use std::collections::BTreeSet;

use crate::{
    cli::network::Network,
    commands,
    image::StoredImage,
    network::{
        HostPort, Mode, NetworkError, Ports, Protocol, Publish, Request, Route, allocate::check, routes,
        usual_driver,
    },
    storage::DataDir,
};

/// Most ports of `--forward-localhost`: their sockets come to this process in one message.
const MOST_FORWARDED: usize = 240;

/// What is asked of the network.
pub(in crate::commands) fn request(arguments: &Network, data: &DataDir) -> Result<Request, NetworkError> {
    let root = rustix::process::geteuid().is_root();
    let mode = arguments.network.unwrap_or(if root { Mode::Bridged } else { Mode::Rootless });
    if let Some(option) = contradiction(arguments, mode) {
        return Err(NetworkError::Contradiction { option, mode });
    }
    if mode == Mode::Bridged && !root {
        return Err(NetworkError::BridgedNeedsRoot);
    }
    let request = Request {
        publish: arguments.publish.clone(),
        publish_all: arguments.publish_all,
        dns: arguments.dns.clone(),
        dns_search: dns_search(arguments)?,
        dns_options: arguments.dns_option.iter().map(|option| option.0.clone()).collect(),
        hosts: arguments.add_host.iter().map(|host| (host.name.clone(), host.address)).collect(),
        forward_localhost: arguments.forward_localhost.clone(),
        egress: arguments.egress.clone().unwrap_or_default(),
        mac: arguments.mac_address,
        address: arguments.ip,
        mtu: arguments.mtu,
        bandwidth: arguments.bandwidth.map(|bandwidth| bandwidth.0),
        pool: arguments.network_pool.0,
        ..Request::new(mode, arguments.rootless_driver.unwrap_or_else(|| usual_driver(data)))
    };
    let forwarded: usize = request.forward_localhost.iter().map(Ports::count).sum();
    if forwarded > MOST_FORWARDED {
        return Err(NetworkError::Unsupported {
            what: format!("{forwarded} ports of --forward-localhost are too many: {MOST_FORWARDED} at most"),
            hint: "name those that the container uses",
        });
    }
    check(&request)?;
    Ok(request)
}

/// An option that was given and means nothing in that mode. What may be in the environment for all VMs is none.
fn contradiction(arguments: &Network, mode: Mode) -> Option<&'static str> {
    let of_any = [
        ("--publish", !arguments.publish.is_empty()),
        ("--publish-all", arguments.publish_all),
        ("--dns", !arguments.dns.is_empty()),
        ("--dns-search", !arguments.dns_search.is_empty()),
        ("--dns-option", !arguments.dns_option.is_empty()),
        ("--forward-localhost", !arguments.forward_localhost.is_empty()),
        ("--egress", arguments.egress.is_some()),
        ("--mac-address", arguments.mac_address.is_some()),
        ("--mtu", arguments.mtu.is_some()),
        ("--bandwidth", arguments.bandwidth.is_some()),
    ];
    let of_bridged = [("--ip", arguments.ip.is_some())];
    let given = |options: &[(&'static str, bool)]| {
        options.iter().find(|(_, given)| *given).map(|(option, _)| *option)
    };
    match mode {
        Mode::Bridged => None,
        Mode::Rootless => given(&of_bridged),
        Mode::None => given(&of_any).or_else(|| given(&of_bridged)),
    }
}

fn dns_search(arguments: &Network) -> Result<Option<Vec<String>>, NetworkError> {
    let domains: Vec<_> = arguments.dns_search.iter().map(|domain| domain.0.clone()).collect();
    match domains.as_slice() {
        [] => Ok(None),
        [none] if none == "." => Ok(Some(Vec::new())),
        some if some.iter().any(|domain| domain == ".") => Err(NetworkError::NoSearchAndMore),
        _ => Ok(Some(domains)),
    }
}

/// The host's routes, where they matter.
pub(in crate::commands) fn host_routes(request: &Request) -> anyhow::Result<Vec<Route>> {
    if request.mode == Mode::Bridged { Ok(commands::block_on(routes())??) } else { Ok(Vec::new()) }
}

/// The ports that an image exposes.
pub(super) fn exposed(image: &StoredImage) -> Vec<(u16, Protocol)> {
    let mut exposed = BTreeSet::new();
    for text in &image.config.config.exposed_ports {
        match text.parse() {
            Ok(Publish { address: None, host: HostPort::Any, guest, protocol }) => {
                exposed.extend(guest.iter().map(|port| (port, protocol)));
            }
            _ => tracing::warn!(port = text, "an exposed port of the image is not published"),
        }
    }
    exposed.into_iter().collect()
}
