use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
};

use fcvm_testkit::{needs_programs, needs_root};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::*;

const MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x0a];

/// A network namespace with an interface in it, in which this thread is.
struct Namespace(Child);

impl Namespace {
    fn enter() -> Option<Self> {
        if !needs_root() || !needs_programs(&["unshare", "ip"]) {
            return None;
        }
        let script = format!(
            "ip link add eth7 address {} type veth peer name other && ip link set other up && echo made && read line",
            text(MAC)
        );
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "made\n");
        let namespace = File::open(format!("/proc/{}/ns/net", child.id())).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        Some(Self(child))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What `ip` prints of this thread's namespace, the lines sorted.
fn ip(arguments: &str) -> Vec<String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lines: Vec<_> = text.lines().map(words).collect();
    lines.sort();
    lines
}

fn address(address: &str, prefix: u8) -> Address {
    Address { address: address.parse().unwrap(), prefix }
}

fn route(destination: &str, prefix: u8, gateway: Option<&str>) -> Route {
    let gateway = gateway.map(|gateway| gateway.parse().unwrap());
    Route { destination: destination.parse().unwrap(), prefix, gateway }
}

fn interface() -> Interface {
    Interface {
        mac: MAC,
        mtu: Some(1400),
        addresses: vec![address("10.0.2.100", 24), address("fd00:fc::100", 64)],
        routes: vec![
            route("0.0.0.0", 0, Some("10.0.2.2")),
            route("::", 0, Some("fd00:fc::2")),
            route("169.254.169.254", 32, None),
        ],
    }
}

const ADDRESSES: &str = "-o addr show dev eth7 scope global";
const ROUTES: &str = "route show proto static";
const ROUTES6: &str = "-6 route show proto static";

fn addresses() -> Vec<String> {
    let word = |line: &String| line.split(' ').nth(3).unwrap().to_owned();
    let mut all: Vec<_> = ip(ADDRESSES).iter().map(word).collect();
    all.sort();
    all
}

#[test]
fn root_an_interface_becomes_what_it_is_to_be() {
    let Some(_namespace) = Namespace::enter() else { return };
    set_up(&[interface()]).unwrap();
    assert_eq!(addresses(), ["10.0.2.100/24", "fd00:fc::100/64"]);
    assert!(ip(ADDRESSES).iter().all(|line| !line.contains("tentative")), "usable at once");
    assert_eq!(ip(ROUTES), ["169.254.169.254 dev eth7 scope link", "default via 10.0.2.2 dev eth7"]);
    assert_eq!(ip(ROUTES6), ["default via fd00:fc::2 dev eth7 metric 1024 pref medium"]);
    let link = ip("-o link show dev eth7").remove(0);
    assert!(link.contains(" mtu 1400 ") && link.contains("UP"), "{link}");
    for setting in ["accept_ra", "autoconf"] {
        let value = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/eth7/{setting}")).unwrap();
        assert_eq!(value, "0\n", "{setting}");
    }
}

#[test]
fn root_what_is_set_up_again_has_nothing_of_before() {
    let Some(_namespace) = Namespace::enter() else { return };
    let mut before = interface();
    before.addresses = vec![address("10.0.2.7", 24), address("10.0.2.100", 24), address("fd00:fc::7", 64)];
    before.routes = vec![
        route("0.0.0.0", 0, Some("10.0.2.3")),
        route("192.0.2.0", 24, Some("10.0.2.3")),
        route("2001:db8::", 32, Some("fd00:fc::3")),
        route("169.254.169.254", 32, None),
    ];
    set_up(&[before]).unwrap();
    assert_eq!(ip(ROUTES).len(), 3);
    for _ in 0..2 {
        set_up(&[interface()]).unwrap();
        assert_eq!(addresses(), ["10.0.2.100/24", "fd00:fc::100/64"]);
        assert_eq!(ip(ROUTES), ["169.254.169.254 dev eth7 scope link", "default via 10.0.2.2 dev eth7"]);
        assert_eq!(ip(ROUTES6), ["default via fd00:fc::2 dev eth7 metric 1024 pref medium"]);
    }
}

#[test]
fn root_an_interface_without_a_link_is_set_up() {
    let Some(_namespace) = Namespace::enter() else { return };
    ip("link set other down");
    set_up(&[interface()]).unwrap();
    assert_eq!(addresses(), ["10.0.2.100/24", "fd00:fc::100/64"]);
    assert_eq!(ip(ROUTES6).len(), 1);
}

#[test]
fn root_an_interface_that_there_is_not_is_named() {
    let Some(_namespace) = Namespace::enter() else { return };
    let missing = Interface { mac: [2, 0, 0xac, 0x10, 0, 0x0f], ..interface() };
    let error = set_up(&[missing]).unwrap_err();
    assert_eq!(error.to_string(), "the machine has no network interface 02:00:ac:10:00:0f");
    let wrong = Interface { routes: vec![route("0.0.0.0", 0, Some("192.0.2.1"))], ..interface() };
    let error = format!("{:#}", set_up(&[wrong]).unwrap_err());
    assert!(error.contains("02:00:00:00:00:0a: failed to add route 0.0.0.0/0: "), "{error}");
}
