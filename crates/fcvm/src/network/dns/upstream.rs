//! Who is asked: the resolvers of the host, or those the user names.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use fs_err::File;
use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice::name_to_index, socket_with};

/// As libc has it (`MAXNS`).
const MOST_SERVERS: usize = 3;
/// What is read of a file at most.
const LONGEST: u64 = 64 << 10;
const PORT: u16 = 53;
/// Where systemd-resolved listens on the host's loopback.
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];

/// Who is asked.
#[derive(Debug)]
pub enum Upstream {
    /// The host's resolvers, as they are at the time.
    Host(HostResolvers),
    /// These, in this order.
    Servers(Vec<SocketAddr>),
}

impl Upstream {
    /// Who is to be asked now, in order.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        match self {
            Self::Servers(servers) => servers.clone(),
            Self::Host(host) => {
                let servers = &host.current().servers;
                // Without one, or without the file, libc asks this machine. Where nothing listens, the kernel
                // says so at once.
                if servers.is_empty() { vec![(Ipv4Addr::LOCALHOST, PORT).into()] } else { servers.clone() }
            }
        }
    }
}

/// What `resolv.conf(5)` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Resolvers: at most three, as libc takes them.
    pub servers: Vec<SocketAddr>,
    /// Domains in which short names are looked up.
    pub search: Vec<String>,
    /// Options, as they are written.
    pub options: Vec<String>,
}

impl ResolvConf {
    /// Reads it. `scope` gives an interface's index by its name, for link-local resolvers. What
    /// is not understood is passed over, as libc does.
    #[must_use]
    pub fn parse(text: &str, scope: impl Fn(&str) -> Option<u32>) -> Self {
        let mut this = Self::default();
        for line in text.lines() {
            // A keyword stands at the line's beginning, a comment's sign too.
            if line.starts_with([' ', '\t', '#', ';']) {
                continue;
            }
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") if this.servers.len() < MOST_SERVERS => {
                    this.servers.extend(words.next().and_then(|word| server(word, &scope)));
                }
                // The last one counts, of either.
                Some("search") => this.search = words.map(domain).filter(|name| !name.is_empty()).collect(),
                Some("domain") => {
                    this.search = words.take(1).map(domain).filter(|name| !name.is_empty()).collect();
                }
                Some("options") => this.options.extend(words.map(Into::into)),
                _ => {}
            }
        }
        this
    }

    /// Whether systemd-resolved is all there is.
    fn is_stub(&self) -> bool {
        !self.servers.is_empty() && self.servers.iter().all(|server| STUBS.contains(&server.ip()))
    }
}

fn domain(word: &str) -> String {
    word.strip_suffix('.').unwrap_or(word).to_ascii_lowercase()
}

/// `192.0.2.1`, `2001:db8::1` or `fe80::1%eth0`.
fn server(word: &str, scope: impl Fn(&str) -> Option<u32>) -> Option<SocketAddr> {
    let Some((address, zone)) = word.split_once('%') else {
        return Some((word.parse::<IpAddr>().ok()?, PORT).into());
    };
    let index = zone.parse().ok().or_else(|| scope(zone))?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, index).into())
}

/// The host's resolvers, read again when the files changed.
#[derive(Debug)]
pub struct HostResolvers {
    paths: Paths,
    read: Mutex<Option<Snapshot>>,
}

#[derive(Debug)]
struct Paths {
    resolv_conf: PathBuf,
    /// What systemd-resolved itself asks.
    behind_stub: PathBuf,
}

#[derive(Debug)]
struct Snapshot {
    stamps: [Option<Stamp>; 2],
    content: Arc<ResolvConf>,
}

/// What is another after a change, also by renaming.
type Stamp = (u64, u64, i64, i64, u64);

impl HostResolvers {
    /// Those of this host: `/etc/resolv.conf`, and where that names systemd-resolved only, what that one asks.
    #[must_use]
    pub fn of_this_host() -> Self {
        Self::at("/etc/resolv.conf", "/run/systemd/resolve/resolv.conf")
    }

    /// The same, of other files.
    #[must_use]
    pub fn at(resolv_conf: impl Into<PathBuf>, behind_stub: impl Into<PathBuf>) -> Self {
        let paths = Paths { resolv_conf: resolv_conf.into(), behind_stub: behind_stub.into() };
        Self { paths, read: Mutex::default() }
    }

    /// What they are now. Without a file there are none.
    #[must_use]
    pub fn current(&self) -> Arc<ResolvConf> {
        let stamps = [&self.paths.resolv_conf, &self.paths.behind_stub].map(|path| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
        });
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some(snapshot) if snapshot.stamps == stamps => snapshot.content.clone(),
            _ => {
                let content = Arc::new(self.paths.read());
                *read = Some(Snapshot { stamps, content: content.clone() });
                content
            }
        }
    }
}

impl Paths {
    fn read(&self) -> ResolvConf {
        let read = |path: &PathBuf| {
            // A file that cannot be read is as none: the warning below tells.
            read_some(path).map(|text| ResolvConf::parse(&text, interface_index)).unwrap_or_default()
        };
        let first = read(&self.resolv_conf);
        if first.is_stub() && self.behind_stub.exists() {
            let behind = read(&self.behind_stub);
            if !behind.servers.is_empty() {
                return behind;
            }
        }
        if first.servers.is_empty() {
            let path = self.resolv_conf.display();
            tracing::warn!(%path, "no resolvers of the host: this machine is asked, if it answers");
        }
        first
    }
}

fn read_some(path: &PathBuf) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn interface_index(name: &str) -> Option<u32> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    name_to_index(socket, name).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> ResolvConf {
        ResolvConf::parse(text, |name| (name == "eth0").then_some(7))
    }

    fn addresses(conf: &ResolvConf) -> Vec<String> {
        conf.servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn servers_are_read_as_libc_does() {
        let conf = parse(
            "# nameserver 192.0.2.9\n; no\nnameserver 192.0.2.1 # first\nnameserver\t2001:db8::1\n\
             nameserver wrong\n nameserver 192.0.2.8\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n",
        );
        assert_eq!(addresses(&conf), ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%7]:53"]);
        assert_eq!(addresses(&parse("nameserver fe80::2%3")), ["[fe80::2%3]:53"]);
        assert!(parse("nameserver fe80::2%unknown\nnameserver\nnameservers 192.0.2.1").servers.is_empty());
    }

    #[test]
    fn the_last_search_counts_and_options_add_up() {
        let conf = parse("domain a.example\nsearch B.example c.example.\noptions ndots:2\noptions edns0 x\n");
        assert_eq!(conf.search, ["b.example", "c.example"]);
        assert_eq!(conf.options, ["ndots:2", "edns0", "x"]);
        assert_eq!(parse("search a.example\ndomain b.example c.example").search, ["b.example"]);
        assert!(parse("search a.example\nsearch .").search.is_empty());
    }

    #[test]
    fn behind_systemd_resolved_are_the_real_ones() {
        let directory = tempfile::tempdir().unwrap();
        let [main, behind] = ["main", "behind"].map(|name| directory.path().join(name));
        let host = HostResolvers::at(&main, &behind);
        std::fs::write(&main, "nameserver 127.0.0.53\nsearch a.example").unwrap();
        assert_eq!(addresses(&host.current()), ["127.0.0.53:53"], "no other file");
        std::fs::write(&behind, "# none yet\n").unwrap();
        assert_eq!(addresses(&host.current()), ["127.0.0.53:53"]);
        std::fs::write(&behind, "nameserver 192.0.2.1\nsearch b.example").unwrap();
        assert_eq!(addresses(&host.current()), ["192.0.2.1:53"]);
        assert_eq!(host.current().search, ["b.example"]);
        // Another resolver on this machine is asked as it is, and so is a stub among others.
        std::fs::write(&main, "nameserver 127.0.0.1").unwrap();
        assert_eq!(addresses(&host.current()), ["127.0.0.1:53"]);
        std::fs::write(&main, "nameserver 127.0.0.54\nnameserver 192.0.2.7").unwrap();
        assert_eq!(addresses(&host.current()), ["127.0.0.54:53", "192.0.2.7:53"]);
    }

    #[test]
    fn a_file_that_comes_changes_or_goes_counts() {
        let directory = tempfile::tempdir().unwrap();
        let main = directory.path().join("resolv.conf");
        let upstream = Upstream::Host(HostResolvers::at(&main, directory.path().join("none")));
        let asked = || upstream.servers().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(asked(), ["127.0.0.1:53"], "as libc does without the file");
        std::fs::write(&main, "nameserver 192.0.2.1").unwrap();
        assert_eq!(asked(), ["192.0.2.1:53"]);
        // By renaming, as most programs do it: same length, perhaps the same time.
        let new = directory.path().join("new");
        std::fs::write(&new, "nameserver 192.0.2.2").unwrap();
        std::fs::rename(&new, &main).unwrap();
        assert_eq!(asked(), ["192.0.2.2:53"]);
        std::fs::remove_file(&main).unwrap();
        assert_eq!(asked(), ["127.0.0.1:53"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(nameserver|search|domain|options|[ \t%:.#0-9a-f\n]|\\PC){0,40}") {
            let conf = parse(&text);
            prop_assert!(conf.servers.len() <= MOST_SERVERS);
            // What Unicode calls a space is none to libc.
            let blank = |name: &String| name.is_empty() || name.contains(|c: char| c.is_ascii_whitespace());
            prop_assert!(!conf.search.iter().any(blank));
        }
    }
}
