//! Who this guest is: host name, machine id, `/etc/hosts`, `/etc/resolv.conf`.

use std::{fmt::Write as _, fs, io, path::Path};

use fcvm_proto::{Identity, Network};
use rustix::mount::mount_bind;

/// Where the files are: in memory, so that another identity costs no write to a disk, which may be frozen then.
const PLACE: &str = "/run/fcvm/etc";
const NAMES: [&str; 4] = ["hostname", "machine-id", "hosts", "resolv.conf"];

/// Has the files in `/etc` be those that [`write`] makes. Once, after it.
pub(super) fn show() -> io::Result<()> {
    for name in NAMES {
        let target = Path::new("/etc").join(name);
        // A link, which a base disk may have there, leads elsewhere.
        if !fs::symlink_metadata(&target).is_ok_and(|target| target.is_file()) {
            match fs::remove_file(&target) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => fs::write(&target, "")?,
            }
        }
        mount_bind(Path::new(PLACE).join(name), target)?;
    }
    Ok(())
}

/// Writes the files and sets the host name.
pub(super) fn write(identity: &Identity, network: &Network) -> io::Result<()> {
    let Identity { hostname, id, .. } = identity;
    rustix::system::sethostname(hostname.as_bytes())?;
    let texts = [format!("{hostname}\n"), format!("{id}\n"), hosts(hostname, network), resolvers(network)];
    fs::create_dir_all(PLACE)?;
    NAMES.iter().zip(texts).try_for_each(|(name, text)| fs::write(Path::new(PLACE).join(name), text))
}

/// The same for a container, whose files Podman has in this directory; mounted, so that they stay what they
/// are.
pub(super) fn write_for_container(
    directory: &Path,
    identity: &Identity,
    network: &Network,
) -> io::Result<()> {
    for (name, text) in [
        ("hostname", format!("{}\n", identity.hostname)),
        ("hosts", hosts(&identity.hostname, network)),
        ("resolv.conf", resolvers(network)),
    ] {
        let path = directory.join(name);
        // One that the container shall not have is not there.
        if path.exists() {
            fs::write(path, text)?;
        }
    }
    Ok(())
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
    let mut text: String = network.dns.iter().map(|address| format!("nameserver {address}\n")).collect();
    for (keyword, values) in [("search", &network.search), ("options", &network.dns_options)] {
        if !values.is_empty() {
            writeln!(text, "{keyword} {}", values.join(" ")).expect("writing to a String cannot fail");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_everyone() {
        let network = Network {
            hosts: vec![("10.0.0.1".into(), "gate".into())],
            dns: vec!["192.0.2.1".into(), "192.0.2.2".into()],
            search: vec!["example.com".into(), "lan".into()],
            dns_options: vec!["ndots:2".into(), "edns0".into()],
            interfaces: Vec::new(),
        };
        assert!(hosts("web", &network).ends_with("\n127.0.1.1 web\n10.0.0.1 gate\n"));
        let lines =
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\nsearch example.com lan\noptions ndots:2 edns0\n";
        assert_eq!(resolvers(&network), lines);
        assert_eq!(resolvers(&Network::default()), "");
    }
}
