//! A host of its own with a network behind it, for tests of networks.
//!
//! ```text
//!   fcvm, in namespaces of the world      the outside: another network namespace
//!
//!   wan 198.51.100.2, 2001:db8::2  ------ wan 198.51.100.1, 2001:db8::1
//!   default routes by way of those              203.0.113.1, 2001:db8:1::1
//! ```

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::fd::AsFd as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::needs_programs;

/// The addresses of the host and of the outside, IPv4 and IPv6.
pub const HOST: [&str; 2] = ["198.51.100.2", "2001:db8::2"];
/// Those of the router, which the host has routes by.
pub const ROUTER: [&str; 2] = ["198.51.100.1", "2001:db8::1"];
/// Of the same, far away.
pub const OUTSIDE: [&str; 2] = ["203.0.113.1", "2001:db8:1::1"];

/// A safety net: nothing takes so long unless it hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Two network namespaces. Dropped, they go.
#[derive(Debug)]
pub struct World {
    host: Keeper,
    outside: Keeper,
    files: TempDir,
}

/// A process that keeps namespaces.
#[derive(Debug)]
pub(crate) struct Keeper(Child);

impl Keeper {
    pub(crate) fn start(options: &[&str], script: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(options).args(["sh", "-ec", &format!("{script}\necho made; read line")]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "made\n", "no namespaces");
        Self(child)
    }

    pub(crate) fn network(&self) -> PathBuf {
        format!("/proc/{}/ns/net", self.0.id()).into()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl World {
    /// Makes it; as root. Nothing, with a word why, where a program is missing that networks take.
    #[must_use]
    pub fn new() -> Option<Self> {
        if !needs_programs(&["ip", "nft", "nsenter", "unshare"]) {
            return None;
        }
        let files = tempfile::tempdir().unwrap();
        let resolv_conf = files.path().join("resolv.conf");
        fs::write(&resolv_conf, format!("nameserver {}\nsearch example.com\n", OUTSIDE[0])).unwrap();
        let outside = Keeper::start(&["--net"], "ip link set lo up");
        let script = format!(
            "mount --bind {resolv} $(readlink -f /etc/resolv.conf)
             # Users of the world may make taps, as on usual hosts.
             mount -t tmpfs none {files}/dev 
             mknod -m 666 {files}/dev/tun c 10 200
             mount --bind {files}/dev/tun /dev/net/tun
             mount -t tmpfs none /run/fcvm
             # As on usual hosts, whatever the real one has.
             echo 0 > /proc/sys/net/ipv4/ip_forward
             echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
             ip link set lo up
             ip link add wan type veth peer name wan netns {outside}",
            resolv = resolv_conf.display(),
            files = files.path().display(),
            outside = outside.0.id(),
        );
        fs::create_dir(files.path().join("dev")).unwrap();
        fs::create_dir_all("/run/fcvm").unwrap();
        let host = Keeper::start(&["--net", "--mount", "--propagation", "private"], &script);
        let world = Self { host, outside, files };
        for (at, [v4, v6]) in [(&world.host, HOST), (&world.outside, ROUTER)] {
            let run = |script: &str| World::ip(at, script);
            run(&format!("addr add {v4}/24 dev wan"));
            run(&format!("addr add {v6}/64 dev wan nodad"));
            run("link set wan up");
        }
        for [far, near] in [[OUTSIDE[0], ROUTER[0]], [OUTSIDE[1], ROUTER[1]]] {
            let length = if far.contains(':') { 128 } else { 32 };
            World::ip(&world.outside, &format!("addr add {far}/{length} dev lo"));
            World::ip(&world.host, &format!("route add default via {near}"));
        }
        Some(world)
    }

    fn ip(at: &Keeper, arguments: &str) {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", at.network().display())).arg("ip").args(arguments.split(' '));
        assert!(command.status().unwrap().success(), "ip {arguments}");
    }

    /// Changes the host's network: `ip …`.
    pub fn configure(&self, arguments: &str) {
        Self::ip(&self.host, arguments);
    }

    /// Changes the network outside: `ip …`.
    pub fn configure_outside(&self, arguments: &str) {
        Self::ip(&self.outside, arguments);
    }

    /// What is before a command that is to run on this host.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        let pid = self.host.0.id().to_string();
        ["nsenter", "-t", &pid, "--net", "--mount", "--wd=."].map(String::from).into()
    }

    /// What is before a command that is to run outside.
    #[must_use]
    pub fn enter_outside(&self) -> Vec<String> {
        ["nsenter", "-t", &self.outside.0.id().to_string(), "--net"].map(String::from).into()
    }

    /// What a command says that runs on this host.
    #[must_use]
    pub fn shell(&self, script: &str) -> String {
        let [program, arguments @ ..] = &self.enter()[..] else { unreachable!() };
        let output = Command::new(program).args(arguments).args(["sh", "-c", script]).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the host has as its `/etc/resolv.conf`.
    #[must_use]
    pub fn resolv_conf(&self) -> PathBuf {
        self.files.path().join("resolv.conf")
    }

    /// Does something as a process of the host: sockets that it makes are the host's.
    pub fn on_host<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        within(&File::open(self.host.network()).unwrap(), act)
    }

    /// Does something as a process of the outside.
    pub fn outside<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        within(&File::open(self.outside.network()).unwrap(), act)
    }

    /// What VMs left on this host: interfaces, tables and rules, settings.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        for line in self.shell("ip -o link; nft list ruleset").lines() {
            if line.contains("fcvm") {
                left.push(line.to_owned());
            }
        }
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            let value = self.shell(&format!("cat /proc/sys/{setting}"));
            if value != "0\n" {
                left.push(format!("{setting} is {}", value.trim()));
            }
        }
        left
    }
}

/// On a thread of its own, in another network namespace.
pub(crate) fn within<T: Send>(network: &File, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let acting = scope.spawn(|| {
            move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        });
        acting.join().unwrap()
    })
}
