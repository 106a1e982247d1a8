//! `fcvm port`.

use std::{net::SocketAddr, process::ExitCode};

use crate::{
    cli::port::{Args, GuestPort, Protocol},
    output::Printer,
    state::{Registry, RuntimeDir},
    storage::DataDir,
};

/// Runs `fcvm port`.
///
/// # Errors
/// Where there is no such VM, it does not publish the port, or the result cannot be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    if args.all {
        for vm in registry.list()? {
            for line in published(&vm.ports) {
                printer.data(format_args!("{}\t{line}", vm.id.short()))?;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    // The command line demands a name, or --all.
    let vm = registry.find(args.vm.as_deref().unwrap_or_default())?;
    let lines = match args.port {
        None => published(&vm.ports),
        Some(port) => {
            let found = of(&vm.ports, port);
            anyhow::ensure!(
                !found.is_empty(),
                "failed to find published port \"{port}\" of VM `{}`",
                vm.name
            );
            found
        }
    };
    lines.iter().try_for_each(|line| printer.data(line))?;
    Ok(ExitCode::SUCCESS)
}

/// `80/tcp -> 0.0.0.0:8080`, by the guest's ports.
fn published(ports: &[(SocketAddr, u16)]) -> Vec<String> {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|(host, guest)| (*guest, *host));
    ports.iter().map(|(host, guest)| format!("{guest}/tcp -> {host}")).collect()
}

/// The host's addresses of one port.
fn of(ports: &[(SocketAddr, u16)], wanted: GuestPort) -> Vec<String> {
    // All that can be published is TCP.
    let mut hosts: Vec<_> = ports
        .iter()
        .filter(|(_, guest)| *guest == wanted.number && wanted.protocol == Protocol::Tcp)
        .map(|(host, _)| *host)
        .collect();
    hosts.sort_unstable();
    hosts.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_as_podman_tells_them() {
        let ports = [("127.0.0.1:8443", 443), ("[::]:8080", 80), ("0.0.0.0:8080", 80)]
            .map(|(host, guest)| (host.parse().unwrap(), guest));
        assert_eq!(
            published(&ports),
            ["80/tcp -> 0.0.0.0:8080", "80/tcp -> [::]:8080", "443/tcp -> 127.0.0.1:8443"]
        );
        for (wanted, hosts) in [
            ("80", &["0.0.0.0:8080", "[::]:8080"][..]),
            ("443/tcp", &["127.0.0.1:8443"]),
            ("443/udp", &[]),
            ("8080", &[]),
        ] {
            assert_eq!(of(&ports, wanted.parse().unwrap()), hosts, "{wanted}");
        }
        assert!(published(&[]).is_empty());
    }
}
