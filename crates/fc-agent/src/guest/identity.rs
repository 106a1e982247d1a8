//! Who this guest is: host name, machine id, `/etc/hosts`, `/etc/resolv.conf`.

use std::{fmt::Write as _, fs, io};

use fcvm_proto::{Identity, Network};

/// Writes the files and sets the host name.
pub(super) fn write(identity: &Identity, network: &Network) -> io::Result<()> {
    rustix::system::sethostname(identity.hostname.as_bytes())?;
    fs::write("/etc/hostname", format!("{}\n", identity.hostname))?;
    fs::write("/etc/machine-id", format!("{}\n", identity.id))?;
    fs::write("/etc/hosts", hosts(&identity.hostname, network))?;
    fs::write("/etc/resolv.conf", resolvers(network))
}

fn hosts(hostname: &str, network: &Network) -> String {
    let mut text =
        format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {hostname}\n");
    for (address, name) in &network.hosts {
        writeln!(text, "{address} {name}").expect("writing to a String cannot fail");
    }
    text
}

fn resolvers(network: &Network) -> String {
    network.dns.iter().map(|address| format!("nameserver {address}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_everyone() {
        let network = Network {
            hosts: vec![("10.0.0.1".into(), "gate".into())],
            dns: vec!["9.9.9.9".into()],
            interfaces: Vec::new(),
        };
        assert!(hosts("web", &network).ends_with("\n127.0.1.1 web\n10.0.0.1 gate\n"));
        assert_eq!(resolvers(&network), "nameserver 9.9.9.9\n");
    }
}
