//! `fcvm port`.

use std::process::ExitCode;

use crate::{
    cli::port::{Args, GuestPort},
    network::PortRecord,
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
fn published(ports: &[PortRecord]) -> Vec<String> {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    ports.iter().map(|port| format!("{}/{} -> {}", port.guest, port.protocol, port.host)).collect()
}

/// The host's addresses of one port.
fn of(ports: &[PortRecord], wanted: GuestPort) -> Vec<String> {
    let mut hosts: Vec<_> = ports
        .iter()
        .filter(|port| port.guest == wanted.number && port.protocol == wanted.protocol)
        .map(|port| port.host)
        .collect();
    hosts.sort_unstable();
    hosts.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Protocol;

    #[test]
    fn ports_are_told_as_podman_tells_them() {
        let ports = [
            ("127.0.0.1:8443", 443, Protocol::Tcp),
            ("[::]:8080", 80, Protocol::Tcp),
            ("0.0.0.0:8080", 80, Protocol::Tcp),
            ("127.0.0.2:53", 53, Protocol::Udp),
        ]
        .map(|(host, guest, protocol)| PortRecord { guest, protocol, host: host.parse().unwrap() });
        assert_eq!(
            published(&ports),
            [
                "53/udp -> 127.0.0.2:53",
                "80/tcp -> 0.0.0.0:8080",
                "80/tcp -> [::]:8080",
                "443/tcp -> 127.0.0.1:8443"
            ]
        );
        for (wanted, hosts) in [
            ("80", &["0.0.0.0:8080", "[::]:8080"][..]),
            ("443/tcp", &["127.0.0.1:8443"]),
            ("53/udp", &["127.0.0.2:53"]),
            ("443/udp", &[]),
            ("8080", &[]),
        ] {
            assert_eq!(of(&ports, wanted.parse().unwrap()), hosts, "{wanted}");
        }
        assert!(published(&[]).is_empty());
    }
}
