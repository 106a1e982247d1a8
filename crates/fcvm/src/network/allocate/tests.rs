//! What VMs get, and that nobody gets what another has.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
};

use proptest::prelude::*;

use super::*;
use crate::network::{Driver, Publish, Resource, Route};

/// A host whose resources are had once only, and some by others from the start.
#[derive(Debug, Default, Clone)]
struct TestHost {
    held: HashSet<Resource>,
    /// Where there is a socket of each port.
    sockets: HashMap<(u16, Protocol), Vec<IpAddr>>,
    denied: HashSet<u16>,
}

impl TestHost {
    fn listen(&mut self, host: &str, protocol: Protocol) {
        let host: SocketAddr = host.parse().unwrap();
        self.sockets.entry((host.port(), protocol)).or_default().push(host.ip());
    }
}

impl Host for TestHost {
    fn take(&mut self, resource: Resource) -> io::Result<()> {
        if let Resource::Port(host, protocol) = resource {
            if self.denied.contains(&host.port()) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            let sockets = self.sockets.entry((host.port(), protocol)).or_default();
            let in_the_way = |other: &IpAddr| {
                let any = other.is_unspecified() || host.ip().is_unspecified();
                *other == host.ip() || (other.is_ipv4() == host.is_ipv4() && any)
            };
            if sockets.iter().any(in_the_way) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            sockets.push(host.ip());
        }
        if self.held.insert(resource) { Ok(()) } else { Err(io::ErrorKind::AddrInUse.into()) }
    }

    fn give_back(&mut self, resource: Resource) {
        assert!(self.held.remove(&resource), "{resource} was not held");
        if let Resource::Port(host, protocol) = resource {
            let sockets = self.sockets.get_mut(&(host.port(), protocol)).unwrap();
            sockets.retain(|address| *address != host.ip());
        }
    }
}

fn id(number: u8) -> VmId {
    VmId::from_bytes([number; 16])
}

fn rootless(publish: &[&str]) -> Request {
    let publish = publish.iter().map(|text| text.parse().unwrap()).collect();
    Request { publish, ..Request::new(Mode::Rootless, Driver::Slirp4netns) }
}

fn bridged(pool: &str, address: Option<&str>) -> Request {
    Request {
        pool: pool.parse().unwrap(),
        address: address.map(|address| address.parse().unwrap()),
        ..Request::new(Mode::Bridged, Driver::Pasta)
    }
}

fn route(network: &str, interface: &str) -> Route {
    Route { network: network.parse().unwrap(), interface: interface.into() }
}

/// VMs that were given something, by name.
#[derive(Default)]
struct World {
    host: TestHost,
    vms: Vec<(String, Allocation)>,
    routes: Vec<Route>,
}

impl World {
    fn start(&mut self, name: &str, request: &Request) -> Result<Allocation, NetworkError> {
        let vms: Vec<_> = self
            .vms
            .iter()
            .map(|(name, has)| Neighbour { name, network: Some(&has.network), ports: &has.ports })
            .collect();
        let others = Others { vms: &vms, routes: &self.routes };
        let allocation = allocate(request, &id(7), others, &mut self.host)?;
        self.vms.push((name.to_owned(), allocation.clone()));
        Ok(allocation)
    }

    fn why_not(&mut self, request: &Request) -> String {
        self.start("other", request).unwrap_err().to_string()
    }

    fn end(&mut self, index: usize) {
        let (_, has) = self.vms.remove(index);
        for port in has.ports {
            self.host.give_back(Resource::Port(port.host, port.protocol));
        }
        let loopback = has.network.loopback.map(Resource::Loopback);
        let subnet = has.network.subnet.map(Resource::Subnet);
        loopback.into_iter().chain(subnet).for_each(|resource| self.host.give_back(resource));
    }
}

fn hosts(allocation: &Allocation) -> Vec<String> {
    allocation.ports.iter().map(|port| format!("{}>{}", port.host, port.guest)).collect()
}

#[test]
fn each_vm_has_a_loopback_address_of_its_own_where_it_needs_one() {
    let mut world = World::default();
    for number in 2..12 {
        let vm = world.start(&format!("vm-{number}"), &rootless(&["8080:80"])).unwrap();
        assert_eq!(hosts(&vm), [format!("127.0.0.{number}:8080>80")]);
    }
    for request in [rootless(&[]), rootless(&["127.0.0.1:1:1"]), Request::none()] {
        assert_eq!(world.start("none", &request).unwrap().network.loopback, None);
    }
    // The lowest that is free again.
    world.end(3);
    assert_eq!(hosts(&world.start("next", &rootless(&["8080:80"])).unwrap()), ["127.0.0.5:8080>80"]);
    let all: HashSet<_> = (0..100)
        .map(|number| {
            world.start(&format!("m{number}"), &rootless(&["1:1"])).unwrap().network.loopback.unwrap()
        })
        .collect();
    assert!(!all.contains(&[127, 0, 0, 53].into()) && !all.contains(&[127, 0, 0, 54].into()));
}

#[test]
fn a_loopback_address_where_a_port_is_taken_is_not_the_one() {
    let mut world = World::default();
    world.host.listen("127.0.0.2:81", Protocol::Tcp);
    world.host.held.insert(Resource::Loopback([127, 0, 0, 3].into()));
    assert_eq!(
        hosts(&world.start("web", &rootless(&["80:80", "81:81"])).unwrap()),
        ["127.0.0.4:80>80", "127.0.0.4:81>81"]
    );
    // Nothing of the first is left.
    assert!(!world.host.held.contains(&Resource::Loopback([127, 0, 0, 2].into())));
    assert_eq!(world.host.held.len(), 4);
    world.host.listen("0.0.0.0:82", Protocol::Tcp);
    assert_eq!(world.why_not(&rootless(&["82:82"])), "port 127.0.0.2:82/tcp is in use by another process");
    assert_eq!(hosts(&world.start("udp", &rootless(&["82:82/udp"])).unwrap()), ["127.0.0.2:82>82"]);
}

#[test]
fn a_conflict_names_the_vm_that_has_the_port() {
    let mut world = World::default();
    world.start("web", &rootless(&["127.0.0.1:80:80", "0.0.0.0:81:81", "[::]:82:82"])).unwrap();
    let before = world.host.clone();
    for (publish, shown) in [
        ("127.0.0.1:80:8080", "127.0.0.1:80"),
        ("0.0.0.0:80:80", "0.0.0.0:80"),
        ("[::]:80:80", "[::]:80"),
        ("192.0.2.1:81:81", "192.0.2.1:81"),
        ("81:81", "127.0.0.2:81"),
        ("127.0.0.1:82:82", "127.0.0.1:82"),
        ("82:82", "127.0.0.2:82"),
    ] {
        let expected = format!("port {shown}/tcp is published by VM `web`");
        assert_eq!(world.why_not(&rootless(&[publish])), expected, "{publish}");
        // What a failed one has taken goes with its process.
        world.host.clone_from(&before);
    }
    for free in ["127.0.0.9:80:80", "80:80", "[::1]:81:81", "0.0.0.0:81:81/udp", "[::1]:80:80"] {
        world.start(free, &rootless(&[free])).unwrap();
    }
}

#[test]
fn what_no_host_could_do_is_refused() {
    let pasta = |publish: &[&str]| Request { driver: Driver::Pasta, ..rootless(publish) };
    for (request, why) in [
        (rootless(&["80:80", "80:80"]), "`80/tcp` is published twice"),
        (rootless(&["80:80", "0.0.0.0:80:81"]), "published twice"),
        (rootless(&["127.0.0.1:80-90:80-90", "127.0.0.1:85:1"]), "port 85/tcp is published twice"),
        (pasta(&["127.0.0.1:80:80", "192.0.2.1:80:81"]), "leads to the guest's 80 at one address and to 81"),
        (rootless(&["1-1000:1-1000", "2000-2100:2000-2100"]), "1101 published ports are too many"),
        (rootless(&["1-65535"]), "65535 published"),
    ] {
        let error = World::default().why_not(&request);
        assert!(error.contains(&why.replace('`', "")), "{error}");
    }
    let both = ["127.0.0.1:80:80", "192.0.2.1:80:80", "0.0.0.0:81:81", "[::]:81:81", "80:80/udp", "82:80"];
    assert_eq!(World::default().start("web", &pasta(&both)).unwrap().ports.len(), both.len());
    let split = ["127.0.0.1:80:80", "192.0.2.1:80:81"];
    assert_eq!(World::default().start("web", &rootless(&split)).unwrap().ports.len(), 2);
    let mut world = World::default();
    world.host.denied.insert(80);
    let error = world.start("web", &rootless(&["80:80"])).unwrap_err();
    assert!(error.hint().unwrap().contains("ip_unprivileged_port_start=80"), "{error}");
}

#[test]
fn any_port_is_a_free_one_and_those_of_a_range_are_in_a_row() {
    let mut world = World::default();
    let vm = world.start("web", &rootless(&["80", "127.0.0.1::53/udp", "1000-1199"])).unwrap();
    assert_eq!(vm.ports.len(), 202);
    assert!(vm.ports.iter().all(|port| (32768..=60999).contains(&port.host.port())));
    let range: Vec<_> = vm.ports.iter().filter(|port| port.guest >= 1000).collect();
    assert!(range.windows(2).all(|pair| pair[1].host.port() == pair[0].host.port() + 1));
    // Only one place is left.
    let mut world = World::default();
    for port in (32768..=60999).filter(|port| !(40000..40010).contains(port)) {
        world.host.listen(&format!("127.0.0.2:{port}"), Protocol::Tcp);
    }
    let vm = world.start("web", &rootless(&["1-10"])).unwrap();
    assert_eq!(vm.ports[0].host.port(), 40000);
    assert_eq!(world.why_not(&rootless(&["127.0.0.2::1"])), "no 1 free ports in a row at 127.0.0.2");
}

#[test]
fn what_an_image_exposes_is_published_besides() {
    let mut world = World::default();
    let mut vm = world.start("web", &rootless(&["127.0.0.1:8080:80"])).unwrap();
    let exposed = [(80, Protocol::Tcp), (53, Protocol::Udp), (443, Protocol::Tcp)];
    let none = Others { vms: &[], routes: &[] };
    publish_exposed(&mut vm, &exposed, none, &mut world.host).unwrap();
    let guests: Vec<_> = vm.ports.iter().map(|port| (port.guest, port.protocol, port.host.ip())).collect();
    let own = IpAddr::from([127, 0, 0, 2]);
    assert_eq!(
        guests,
        [(53, Protocol::Udp, own), (80, Protocol::Tcp, [127, 0, 0, 1].into()), (443, Protocol::Tcp, own)]
    );
    assert_eq!(vm.network.loopback.map(IpAddr::from), Some(own));
    let before = vm.clone();
    publish_exposed(&mut vm, &exposed, none, &mut world.host).unwrap();
    assert_eq!(vm, before);
    let all: Vec<_> = (1..=u16::MAX).map(|port| (port, Protocol::Tcp)).collect();
    let error = publish_exposed(&mut vm, &all, none, &mut world.host).unwrap_err();
    assert!(matches!(error, NetworkError::TooManyPorts { .. }), "{error}");
}

#[test]
fn networks_are_taken_from_the_pool() {
    // Among them that of a VM of another data directory.
    let routes = vec![route("192.0.2.0/24", "eth0"), route("10.9.0.4/30", "fcvm-0123")];
    let mut world = World { routes, ..World::default() };
    world.host.held.insert(Resource::Subnet("10.9.0.8/30".parse().unwrap()));
    for (number, subnet) in ["10.9.0.0/30", "10.9.0.12/30"].into_iter().enumerate() {
        let vm = world.start(&format!("vm-{number}"), &bridged("10.9.0.0/28", None)).unwrap();
        assert_eq!(vm.network.subnet, Some(subnet.parse().unwrap()));
    }
    let error = world.why_not(&bridged("10.9.0.0/28", None));
    assert_eq!(error, "the pool 10.9.0.0/28 of bridged networks has no free one left");
    world.end(0);
    let vm = world.start("next", &bridged("10.9.0.0/28", Some("10.9.0.2"))).unwrap();
    assert_eq!(vm.network.ends(), Some(([10, 9, 0, 1].into(), [10, 9, 0, 2].into())));
    for (address, why) in [
        ("10.9.0.2", "in use by VM `next`"),
        ("10.9.0.6", "in use by another VM, at `fcvm-0123`"),
        ("10.9.0.10", "in use by another VM"),
        ("10.9.0.1", "no VM can have the address `10.9.0.1`"),
        ("10.9.0.3", "no VM can have"),
        ("10.9.1.2", "not in the pool 10.9.0.0/28"),
    ] {
        let error = world.why_not(&bridged("10.9.0.0/28", Some(address)));
        assert!(error.contains(why), "{address}: {error}");
    }
}

#[test]
fn a_pool_that_overlaps_a_route_is_refused() {
    for (network, interface, refused) in [
        ("10.0.0.0/8", "tun0", true),
        ("10.231.7.0/24", "docker0", true),
        ("10.231.0.1/32", "lo", true),
        ("10.232.0.0/16", "eth0", false),
        ("10.231.0.0/30", "fcvm-1", false),
    ] {
        let mut world = World { routes: vec![route(network, interface)], ..World::default() };
        let got = world.start("web", &bridged("10.231.0.0/16", None));
        assert_eq!(got.is_err(), refused, "{network}");
        if let Err(error) = got {
            let text = error.to_string();
            assert!(text.contains(network) && text.contains(interface), "{text}");
            assert!(error.hint().unwrap().contains("--network-pool"));
        }
    }
}

#[test]
fn hardware_addresses_are_the_ids_unless_given() {
    let mut world = World::default();
    let vm = world.start("web", &rootless(&[])).unwrap();
    assert_eq!(vm.network.mac.to_string(), "02:fc:07:07:07:07");
    let mac = "02:00:00:00:00:01".parse().unwrap();
    // Of two VMs, too: none is in the other's network.
    for name in ["a", "b"] {
        let request = Request { mac: Some(mac), ..rootless(&[]) };
        assert_eq!(world.start(name, &request).unwrap().network.mac, mac);
    }
}

/// What a VM may ask for in a long sequence of starts and ends.
fn asked() -> impl Strategy<Value = (bool, Vec<Publish>)> {
    let publish = prop_oneof![
        (1u16..6, 1u16..4).prop_map(|(host, guest)| format!("{host}:{guest}")),
        (1u16..4).prop_map(|guest| format!("{guest}/udp")),
        (1u16..4, 1u16..4).prop_map(|(host, guest)| format!("127.0.0.{host}:{host}:{guest}")),
        (1u16..20).prop_map(|guest| format!("{guest}-{}", guest + 3)),
        Just("0.0.0.0:6:6".to_owned()),
        Just("[::]:7:7".to_owned()),
    ];
    let publish = publish.prop_map(|text| text.parse().unwrap());
    (any::<bool>(), prop::collection::vec(publish, 0..4))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn nothing_is_given_twice(
        steps in prop::collection::vec((asked(), any::<prop::sample::Index>(), 0u8..4), 1..300)
    ) {
        let mut world = World::default();
        for (number, ((is_bridged, publish), index, choice)) in steps.into_iter().enumerate() {
            if choice == 0 && !world.vms.is_empty() {
                world.end(index.index(world.vms.len()));
                continue;
            }
            let base = if is_bridged { bridged("10.9.0.0/21", None) } else { rootless(&[]) };
            let before = world.host.clone();
            if world.start(&format!("vm-{number}"), &Request { publish, ..base }).is_err() {
                // What a failed one has taken goes with its process.
                world.host = before;
            }
            let mut seen = HashMap::new();
            for (name, has) in &world.vms {
                let unique = [
                    has.network.loopback.map(|address| address.to_string()),
                    has.network.subnet.map(|subnet| subnet.to_string()),
                ];
                let ports = has.ports.iter().map(|port| format!("{}/{}", port.host, port.protocol));
                for resource in unique.into_iter().flatten().chain(ports) {
                    let other = seen.insert(resource.clone(), name);
                    prop_assert!(other.is_none(), "{resource} is {name}'s and {other:?}'s");
                }
                let own = has.ports.iter().filter(|port| port.host.ip().is_loopback() && port.host.ip() != IpAddr::from([127, 0, 0, 1]));
                let explicit = |port: &PortRecord| port.host.port() < 4;
                for port in own.filter(|port| !explicit(port)) {
                    prop_assert_eq!(Some(port.host.ip()), has.network.loopback.map(IpAddr::from));
                }
            }
        }
    }
}
