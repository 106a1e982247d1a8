//! Networks of VMs without VMs: at the tap stands a namespace with an interface, as a guest's.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::OwnedFd,
    path::Path,
    thread,
    time::Duration,
};

use fcvm::{
    hypervisor::NicBackend,
    network::{
        Allocation, Driver, Mode, Network, Others, PortRecord, Request, Reservations, Setting,
        allocate::allocate,
        layout::{GATEWAY, GUEST, GUEST_V6, ROOTLESS_GATEWAY, ROOTLESS_GATEWAY_V6, TAP},
        routes,
    },
    state::VmId,
};
use fcvm_testkit::{
    Wired, World, needs_programs, needs_root,
    talk::{PATIENCE, ask, echo, echo_tcp, echo_udp},
    world::{HOST, OUTSIDE, ROUTER},
};
use tokio::sync::oneshot;

/// Where the outside echoes.
const ECHO: u16 = 7;

/// A network in a world, and a guest without a machine.
struct Plugged {
    guest: Option<Wired>,
    ports: Vec<PortRecord>,
    allocation: Allocation,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<thread::JoinHandle<()>>,
    _runtime_dir: tempfile::TempDir,
}

impl Plugged {
    /// Makes it. The thread that starts the processes of the network lives as long as it.
    fn new(world: &World, request: Request) -> Self {
        let runtime_dir = tempfile::tempdir().unwrap();
        let directory = runtime_dir.path().to_owned();
        let (ready, made) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let start = world.on_host(|| {
            // Threads of this one are in its namespace.
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    let mut reservations = Reservations::default();
                    let id: VmId =
                        serde_json::from_value(format!("{:032x}", std::process::id()).into()).unwrap();
                    let routes = routes().await.unwrap();
                    let others = Others { vms: &[], routes: &routes };
                    let allocation = allocate(&request, &id, others, &mut reservations).unwrap();
                    let setting = Setting {
                        request: &request,
                        record: &allocation.network,
                        ports: &allocation.ports,
                        runtime_dir: &directory,
                        program: Path::new(env!("CARGO_BIN_EXE_fcvm")),
                    };
                    let made = async {
                        let mut network = Network::start(&setting, &mut reservations).await?.unwrap();
                        network.finish().await?;
                        Ok::<_, fcvm::network::NetworkError>(network)
                    };
                    let network = match made.await {
                        Ok(network) => network,
                        Err(error) => {
                            ready.send(Err(error)).unwrap();
                            return;
                        }
                    };
                    let NicBackend::Tap { name, namespaces } = &network.nic().backend else {
                        panic!("no tap")
                    };
                    let namespace: OwnedFd = namespaces.network.try_clone().unwrap();
                    let nic = (name.clone(), namespace, network.nic().interface.clone());
                    ready.send(Ok((nic, allocation.clone()))).unwrap();
                    stopped.await.ok();
                    network.stop().await;
                });
            })
        });
        let ((tap, namespace, interface), allocation) = made.recv().unwrap().unwrap();
        let mut set_up: Vec<_> = interface
            .addresses
            .iter()
            .map(|address| format!("ip addr add {}/{} dev eth0 nodad", address.address, address.prefix))
            .collect();
        set_up.push(format!("ip link set eth0 mtu {} up", interface.mtu.unwrap()));
        set_up.extend(interface.routes.iter().map(|route| {
            format!("ip route add {}/{} via {}", route.destination, route.prefix, route.gateway.unwrap())
        }));
        let guest = Some(Wired::new(namespace, &tap, &set_up));
        Self {
            guest,
            ports: allocation.ports.clone(),
            allocation,
            stop: Some(stop),
            serving: Some(start),
            _runtime_dir: runtime_dir,
        }
    }

    fn guest(&self) -> &Wired {
        self.guest.as_ref().unwrap()
    }

    fn port(&self, guest: u16) -> SocketAddr {
        self.ports.iter().find(|port| port.guest == guest).unwrap().host
    }

    fn end(mut self) {
        self.guest.take();
        drop(self.stop.take());
        self.serving.take().unwrap().join().unwrap();
    }
}

fn request(mode: Mode) -> Request {
    Request { dns: vec![OUTSIDE[0].parse().unwrap()], ..Request::new(mode, Driver::Pasta) }
}

/// What can run this, and a world with servers that echo outside.
fn world() -> Option<World> {
    if !needs_root() || !needs_programs(&["socat", "pasta", "slirp4netns"]) {
        return None;
    }
    let world = World::new()?;
    echo_tcp(world.outside(|| TcpListener::bind(("::", ECHO)).unwrap()));
    for address in OUTSIDE {
        // A socket of all addresses would answer with another than it was asked at.
        echo_udp(world.outside(|| UdpSocket::bind((address, ECHO)).unwrap()));
    }
    Some(world)
}

fn serve(tcp: TcpListener, udp: UdpSocket) {
    echo_tcp(tcp);
    echo_udp(udp);
}

/// As [`echo`], without ends: Debian 12's pasta does not pass on that a guest has no more to say.
fn answered(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut all = vec![0; bytes.len()];
    stream.read_exact(&mut all).unwrap();
    all
}

fn both_ways(mode: Mode, driver: Driver) {
    let Some(world) = world() else { return };
    let ports = ["8080:80", "8080:80/udp", "0.0.0.0:9000:80", "[::]:9000:80", "0.0.0.0:9000:80/udp"];
    let v6 = |port: &&str| driver != Driver::Slirp4netns || !port.starts_with('[');
    let publish = ports.iter().filter(|port| v6(port)).map(|port| port.parse().unwrap()).collect();
    let plugged = Plugged::new(&world, Request { publish, driver, ..request(mode) });
    let guest = plugged.guest();
    let (tcp, udp) =
        guest.inside(|| (TcpListener::bind(("::", 80)).unwrap(), UdpSocket::bind(("::", 80)).unwrap()));
    serve(tcp, udp);
    // Out.
    for address in OUTSIDE {
        let to = SocketAddr::new(address.parse().unwrap(), ECHO);
        let connect = || guest.inside(|| TcpStream::connect(to).unwrap());
        assert_eq!(answered(connect(), b"out"), b"out", "{to}");
        if driver != Driver::Pasta || mode == Mode::Bridged {
            assert_eq!(echo(connect(), b"out"), b"out", "{to}");
        }
        let any: IpAddr = if to.is_ipv4() { GUEST.into() } else { GUEST_V6.into() };
        let socket = guest.inside(|| UdpSocket::bind((any, 0)).unwrap());
        assert_eq!(ask(&socket, to, b"out"), b"out", "{to}");
        let long = vec![7; 8000];
        assert_eq!(ask(&socket, to, &long), long, "{to}");
    }
    // In.
    let local = plugged.port(80);
    let local = if local.ip().is_loopback() {
        local
    } else {
        plugged.ports.iter().map(|port| port.host).find(|host| host.ip().is_loopback()).unwrap()
    };
    assert_eq!(local.port(), 8080);
    let mut told = [0; 2_000_000];
    told[1_000_000] = 1;
    assert!(echo(world.on_host(|| TcpStream::connect(local).unwrap()), &told) == told);
    let socket = world.on_host(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    assert_eq!(ask(&socket, local, b"in"), b"in");
    for host in HOST {
        if host.contains(':') && driver == Driver::Slirp4netns {
            continue;
        }
        let to = SocketAddr::new(host.parse().unwrap(), 9000);
        assert_eq!(echo(world.outside(|| TcpStream::connect(to).unwrap()), b"in"), b"in", "{to}");
    }
    let socket = world.outside(|| UdpSocket::bind((ROUTER[0], 0)).unwrap());
    assert_eq!(ask(&socket, SocketAddr::new(HOST[0].parse().unwrap(), 9000), b"in"), b"in");
    plugged.end();
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn root_a_bridged_network_leads_both_ways() {
    both_ways(Mode::Bridged, Driver::Pasta);
}

#[test]
fn root_pasta_leads_both_ways() {
    both_ways(Mode::Rootless, Driver::Pasta);
}

#[test]
fn root_slirp4netns_leads_both_ways() {
    both_ways(Mode::Rootless, Driver::Slirp4netns);
}

/// What the guest may connect to, and what it may not.
fn isolation(mode: Mode, driver: Driver) {
    let Some(world) = world() else { return };
    let address = ["169.254.169.254", "192.0.2.80"];
    for address in address {
        world.configure_outside(&format!("addr add {address}/32 dev lo"));
        world.configure(&format!("route add {address} via {}", ROUTER[0]));
    }
    let [metadata, other] = address.map(|address| SocketAddr::new(address.parse().unwrap(), ECHO));
    let (open, closed) = world
        .on_host(|| (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()));
    let [open, closed] = [open, closed].map(|listener| {
        let port = listener.local_addr().unwrap().port();
        echo_tcp(listener);
        port
    });
    // Nobody listens at the others, which are many.
    let forward_localhost = vec![open.to_string().parse().unwrap(), "1000-1099".parse().unwrap()];
    let plugged = Plugged::new(&world, Request { forward_localhost, driver, ..request(mode) });
    let guest = plugged.guest();
    let connect = |to: SocketAddr| guest.inside(|| TcpStream::connect_timeout(&to, PATIENCE));
    assert_eq!(answered(connect(other).unwrap(), b"other"), b"other");
    // The host itself could.
    drop(world.on_host(|| TcpStream::connect(metadata).unwrap()));
    connect(metadata).unwrap_err();
    // Of its loopback only what it gives away.
    let gateway = |port| SocketAddr::new(GATEWAY.into(), port);
    assert_eq!(echo(connect(gateway(open)).unwrap(), b"open"), b"open");
    connect(gateway(closed)).unwrap_err();
    // Nor where its uplink has it.
    let closed6 = world.on_host(|| TcpListener::bind("[::1]:0").unwrap());
    let port6 = closed6.local_addr().unwrap().port();
    echo_tcp(closed6);
    for uplink in [ROOTLESS_GATEWAY.into(), ROOTLESS_GATEWAY_V6.into()] {
        let port = if IpAddr::is_ipv4(&uplink) { closed } else { port6 };
        let connected = guest.inside(|| TcpStream::connect_timeout(&SocketAddr::new(uplink, port), PATIENCE));
        connected.unwrap_err();
    }
    // Also for a guest that believes that loopback is elsewhere.
    guest.shell(
        "echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
         ip route del local 127.0.0.1 table local; ip route del local 127.0.0.0/8 table local
         ip route add 127.0.0.0/8 via 10.0.2.2 src 10.0.2.100",
    );
    let astray = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), closed);
    let error = guest.inside(|| TcpStream::connect_timeout(&astray, Duration::from_secs(1))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    // As another than it is, it says nothing: what comes first is its own.
    let collector = world.outside(|| UdpSocket::bind((OUTSIDE[0], 1000)).unwrap());
    collector.set_read_timeout(Some(PATIENCE)).unwrap();
    guest.shell("ip addr add 10.0.2.77/24 dev eth0; ip addr add fd00:fc::77/64 dev eth0 nodad");
    for (from, text) in [("10.0.2.77", "another"), ("10.0.2.100", "itself")] {
        let socket = guest.inside(|| UdpSocket::bind((from, 0)).unwrap());
        guest.inside(|| socket.send_to(text.as_bytes(), (OUTSIDE[0], 1000)).unwrap());
    }
    let mut first = [0; 100];
    let length = collector.recv(&mut first).unwrap();
    assert_eq!(&first[..length], b"itself");
    // Another VM at the ports that it publishes for others, and nowhere else.
    let publish = vec!["8080:80".parse().unwrap(), "0.0.0.0:9000:80".parse().unwrap()];
    let neighbour = Plugged::new(&world, Request { publish, driver, ..request(mode) });
    let (tcp, udp) = neighbour
        .guest()
        .inside(|| (TcpListener::bind(("::", 80)).unwrap(), UdpSocket::bind(("::", 80)).unwrap()));
    serve(tcp, udp);
    let published = SocketAddr::new(HOST[0].parse().unwrap(), 9000);
    assert_eq!(answered(connect(published).unwrap(), b"neighbour"), b"neighbour");
    if let Some(subnet) = neighbour.allocation.network.subnet {
        let IpAddr::V4(network) = subnet.address else { panic!("{subnet}") };
        let its_end = SocketAddr::new(Ipv4Addr::from_bits(network.to_bits() + 2).into(), 8080);
        connect(its_end).unwrap_err();
    }
    neighbour.end();
    plugged.end();
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn root_a_bridged_guest_gets_no_further_than_it_may() {
    isolation(Mode::Bridged, Driver::Pasta);
}

#[test]
fn root_a_guest_gets_no_further_by_pasta_than_it_may() {
    isolation(Mode::Rootless, Driver::Pasta);
}

#[test]
fn root_a_guest_gets_no_further_by_slirp4netns_than_it_may() {
    isolation(Mode::Rootless, Driver::Slirp4netns);
}

/// A question for a name's IPv4 addresses.
fn question(name: &str) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// Answers every question with one address.
fn resolver(socket: UdpSocket, address: Ipv4Addr) {
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let mut answer = query[..length].to_vec();
            (answer[2], answer[3], answer[7]) = (0x81, 0x80, 1);
            answer[8..12].fill(0);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(address.octets());
            socket.send_to(&answer, from).ok();
        }
    });
}

fn egress(mode: Mode) {
    let Some(world) = world() else { return };
    let [listed, unlisted] = ["192.0.2.80", "192.0.2.81"];
    for address in [listed, unlisted] {
        world.configure_outside(&format!("addr add {address}/32 dev lo"));
    }
    let socket = world.outside(|| UdpSocket::bind((OUTSIDE[0], 53)).unwrap());
    resolver(socket, OUTSIDE[0].parse().unwrap());
    let egress = format!("{listed}/32,*.example.com").parse().unwrap();
    let publish = vec!["8080:80".parse().unwrap()];
    let plugged = Plugged::new(&world, Request { egress, publish, ..request(mode) });
    let guest = plugged.guest();
    let reaches = |address: &str| {
        let to = SocketAddr::new(address.parse().unwrap(), ECHO);
        guest.inside(|| TcpStream::connect_timeout(&to, PATIENCE)).is_ok()
    };
    assert!(reaches(listed));
    // Refused at once, rather than dropped.
    assert!(!reaches(unlisted) && !reaches(OUTSIDE[0]) && !reaches(OUTSIDE[1]));
    let socket = guest.inside(|| UdpSocket::bind((GUEST, 0)).unwrap());
    let gateway = SocketAddr::new(GATEWAY.into(), 53);
    let refused = ask(&socket, gateway, &question("example.org"));
    assert_eq!((refused[3] & 15, refused[7]), (5, 0), "{refused:?}");
    assert!(!reaches(OUTSIDE[0]));
    // Whomever the guest asks, it is the gateway that answers.
    let elsewhere = SocketAddr::new("192.0.2.53".parse().unwrap(), 53);
    for server in [gateway, elsewhere] {
        let answer = ask(&socket, server, &question("far.example.com"));
        assert_eq!((answer[3] & 15, answer[7]), (0, 1), "{answer:?}");
    }
    assert!(reaches(OUTSIDE[0]) && !reaches(unlisted));
    // Who asks first is answered all the same.
    let (tcp, udp) =
        guest.inside(|| (TcpListener::bind(("::", 80)).unwrap(), UdpSocket::bind(("::", 80)).unwrap()));
    serve(tcp, udp);
    let local = plugged.port(80);
    assert_eq!(echo(world.on_host(|| TcpStream::connect(local).unwrap()), b"in"), b"in");
    plugged.end();
    let plugged = Plugged::new(&world, Request { egress: "deny".parse().unwrap(), ..request(mode) });
    let to = SocketAddr::new(OUTSIDE[0].parse().unwrap(), ECHO);
    plugged.guest().inside(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap_err();
    plugged.end();
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn root_a_bridged_guest_goes_where_it_is_let() {
    egress(Mode::Bridged);
}

#[test]
fn root_a_rootless_guest_goes_where_it_is_let() {
    egress(Mode::Rootless);
}

#[test]
fn root_bandwidth_and_the_length_of_packets_are_as_asked_for() {
    let Some(world) = world() else { return };
    let publish = vec!["80".parse().unwrap()];
    let limits = Request { bandwidth: Some(1 << 20), mtu: Some(1200), publish, ..request(Mode::Bridged) };
    let plugged = Plugged::new(&world, limits);
    let guest = plugged.guest();
    assert!(guest.shell("ip link show eth0").contains(" mtu 1200 "));
    assert!(plugged.guest().at_the_tap(&format!("ip link show {TAP}")).contains(" mtu 1200 "));
    let (tcp, udp) =
        guest.inside(|| (TcpListener::bind(("::", 80)).unwrap(), UdpSocket::bind(("::", 80)).unwrap()));
    serve(tcp, udp);
    let local = plugged.port(80);
    let begun = std::time::Instant::now();
    let bytes = vec![1; 4 << 20];
    assert!(echo(world.on_host(|| TcpStream::connect(local).unwrap()), &bytes) == bytes);
    // What is lost by the limit is sent again, later and later: so long at least, and less than ten times that.
    let took = begun.elapsed();
    assert!((3..40).contains(&took.as_secs()), "{took:?}");
    plugged.end();
    assert_eq!(world.leftovers(), [""; 0]);
}
