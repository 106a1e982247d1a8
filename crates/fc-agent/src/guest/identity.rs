//! Who this guest is: host name, machine id, `/etc/hosts`, `/etc/resolv.conf`.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
};

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
///
/// # Errors
/// Where one cannot be written.
pub(super) fn write(identity: &Identity, network: &Network) -> io::Result<()> {
    fs::create_dir_all(PLACE)?;
    for name in NAMES {
        File::options().create(true).append(true).open(Path::new(PLACE).join(name))?;
    }
    Files::open(Path::new(PLACE), &NAMES)?.write(identity, network)?;
    rustix::system::sethostname(identity.hostname.as_bytes())?;
    Ok(())
}

/// Files that say who a guest is.
#[derive(Debug)]
pub(super) struct Files(Vec<(&'static str, File)>);

impl Files {
    /// The guest's own.
    ///
    /// # Errors
    /// Where they cannot be opened.
    pub(super) fn own() -> io::Result<Self> {
        Self::open(Path::new(PLACE), &NAMES)
    }

    /// A container's, which Podman has in this directory; mounted, so that they stay what they are.
    ///
    /// # Errors
    /// Where one cannot be opened.
    pub(super) fn of_container(directory: &Path) -> io::Result<Self> {
        Self::open(directory, &["hostname", "hosts", "resolv.conf"])
    }

    fn open(directory: &Path, names: &[&'static str]) -> io::Result<Self> {
        let mut files = Vec::new();
        for name in names {
            match File::options().write(true).open(directory.join(name)) {
                Ok(file) => files.push((*name, file)),
                // One that a container shall not have is not there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(files))
    }

    /// Has them say this.
    ///
    /// # Errors
    /// Where one cannot be written.
    pub(super) fn write(&self, identity: &Identity, network: &Network) -> io::Result<()> {
        let Identity { hostname, id, .. } = identity;
        for (name, file) in &self.0 {
            let text = match *name {
                "hostname" => format!("{hostname}\n"),
                "machine-id" => format!("{id}\n"),
                "hosts" => hosts(hostname, network),
                _ => resolvers(network),
            };
            file.write_all_at(text.as_bytes(), 0)?;
            let length = u64::try_from(text.len()).map_err(io::Error::other)?;
            // As a rule it is as long as before.
            if file.metadata()?.len() != length {
                file.set_len(length)?;
            }
        }
        Ok(())
    }
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
