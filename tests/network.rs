//! Networks of VMs: what guests reach, and who reaches them.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use fcvm_testkit::{
    Entry, Layer, Output, Running, TestEnv, World, kill_uplink, needs_programs, needs_root, noise, scaled,
    sha256,
    talk::{PATIENCE, answer_names, ask, echo, echo_tcp, echo_udp, serve},
    world::{HOST, OUTSIDE, ROUTER},
};

/// What servers of the outside listen at.
const ECHO: u16 = 7;
const SOURCE: u16 = 19;
const SINK: u16 = 9;
/// How much the source sends, where the guest is not slow.
const BIG: usize = 64 << 20;
/// A name that the test's resolver knows, and one that it does not give to everybody.
const NAME: &str = "far.example.com";
const OTHER_NAME: &str = "near.example.com";

/// A world, and VMs on its host with an image that has `socat`.
fn world_for_vms() -> Option<(World, TestEnv)> {
    if !needs_root() || !needs_programs(&["socat", "pasta"]) {
        return None;
    }
    let world = World::new()?;
    let env = TestEnv::for_warm_vms(env!("CARGO_BIN_EXE_fcvm"))?.on(&world);
    let busybox = Layer::new().busybox();
    let links = ["ping", "nslookup", "ip", "nc", "yes"];
    let layer = links
        .iter()
        .fold(busybox, |layer, name| layer.with(Entry::symlink(&format!("bin/{name}"), "busybox")));
    env.import("net", &layer.program("/usr/bin/socat").to_tar());
    serve_outside(&world);
    Some((world, env))
}

fn fcvm(env: &TestEnv, arguments: &[&str]) -> Output {
    env.fcvm().args(arguments).run()
}

fn exec(env: &TestEnv, vm: &str, script: &str) -> Output {
    fcvm(env, &["exec", vm, "sh", "-c", script])
}

/// Servers on all addresses of the outside, until the test ends.
fn serve_outside(world: &World) {
    let (tcp, udp, source, sink, dns) = world.outside(|| {
        (
            TcpListener::bind(("::", ECHO)).unwrap(),
            OUTSIDE.map(|address| UdpSocket::bind((address, ECHO)).unwrap()),
            TcpListener::bind(("::", SOURCE)).unwrap(),
            TcpListener::bind(("::", SINK)).unwrap(),
            UdpSocket::bind((OUTSIDE[0], 53)).unwrap(),
        )
    });
    echo_tcp(tcp);
    udp.into_iter().for_each(echo_udp);
    serve(source, |mut stream| drop(stream.write_all(&noise(scaled(BIG)))));
    serve(sink, |mut stream| {
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            writeln!(stream, "{}", sha256(all.as_slice())).ok();
        }
    });
    answer_names(dns, &[(NAME, OUTSIDE), (OTHER_NAME, ROUTER)]);
}

/// What a guest's servers are: TCP and UDP that echo, one that resets, one that does not read.
const SERVERS: &str = "
    socat TCP6-LISTEN:80,fork,reuseaddr,backlog=128 PIPE &
    socat UDP6-LISTEN:53,fork,reuseaddr PIPE &
    socat TCP6-LISTEN:81,fork,reuseaddr,linger=0 EXEC:true &
    socat TCP6-LISTEN:82,fork,reuseaddr EXEC:'sleep 1000' &
    socat TCP4-LISTEN:83,fork,reuseaddr SYSTEM:'echo $SOCAT_PEERADDR' &
    echo ready
    exec sleep 100000";

fn start(env: &TestEnv, name: &str, options: &[&str]) -> Output {
    // busybox's ping takes it.
    let run = ["podman", "run", "-d", "--name", name, "--cap-add", "net_raw"];
    let image = ["net", "sh", "-c", SERVERS];
    let output = env.fcvm().args(run).args(env.options()).args(options).args(image).run();
    output.assert_code(0);
    output
}

/// What a kind of network has.
struct Kind {
    options: &'static [&'static str],
    /// Ports at IPv6 addresses, the addresses of those who come from outside, and pings.
    is_whole: bool,
}

const BRIDGED: Kind = Kind { options: &["--network", "bridged"], is_whole: true };
const ROOTLESS: Kind =
    Kind { options: &["--network", "rootless", "--rootless-driver", "slirp4netns"], is_whole: false };

fn both_ways(kind: &Kind) {
    let Some((world, env)) = world_for_vms() else { return };
    let ports = ["-p", "8080:80", "-p", "5353:53/udp", "-p", "0.0.0.0:9000:80", "-p", "8081:81"];
    let more = ["-p", "8082:82", "-p", "0.0.0.0:9083:83", "-p", "0.0.0.0:9053:53/udp"];
    let v6: &[_] = if kind.is_whole { &["-p", "[::]:9000:80"] } else { &[] };
    start(&env, "web", &[kind.options, &ports, &more, v6].concat());
    // From the guest.
    let [far, far6] = OUTSIDE;
    let ping = |address: &str| {
        // Pings of slirp4netns are for who may ping, which root in a namespace is not everywhere.
        let pings = format!("ping -c 1 -W 100 {address} > /dev/null && ");
        format!("{}echo pinged", if kind.is_whole { &pings } else { "" })
    };
    let script = format!(
        "set -e
         until nc 127.0.0.1 80 </dev/null 2> /dev/null; do :; done
         nslookup -type=a {NAME} | grep -c {far}
         {ping4}
         echo four | socat -t 100 - TCP4:{far}:{ECHO}
         echo named | socat -t 100 - TCP4:{NAME}:{ECHO}
         echo datagram | socat -t 3 - UDP4:{far}:{ECHO}
         head -c 8000 /dev/urandom > /tmp/long
         socat -b 65000 -t 3 - UDP4:{far}:{ECHO} < /tmp/long | cmp - /tmp/long && echo long
         socat -u TCP4:{far}:{SOURCE} - | sha256sum
         head -c {big} /dev/zero | socat -t 300 - TCP4:{far}:{SINK}
         grep -c example.com /etc/resolv.conf
         echo six | socat -t 100 - TCP6:[{far6}]:{ECHO}
         echo datagram6 | socat -t 3 - UDP6:[{far6}]:{ECHO}
         {ping6}",
        big = scaled(BIG),
        ping4 = ping(far),
        ping6 = ping(far6),
    );
    let seen = exec(&env, "web", &script).ok();
    let zeros = sha256(vec![0; scaled(BIG)].as_slice());
    let expected = format!(
        "1\npinged\nfour\nnamed\ndatagram\nlong\n{}  -\n{zeros}\n1\nsix\ndatagram6\npinged",
        sha256(noise(scaled(BIG)).as_slice())
    );
    assert_eq!(seen, expected);
    // From the host, at the VM's own loopback address.
    let address = fcvm(&env, &["port", "web", "80"]).ok();
    let local = address.lines().find(|line| line.starts_with("127.")).unwrap();
    let local: SocketAddr = local.parse().unwrap();
    assert!(local.ip().is_loopback() && local.ip() != IpAddr::from([127, 0, 0, 1]), "{local}");
    let connect = |to: SocketAddr| world.on_host(|| TcpStream::connect(to).unwrap());
    let big = noise(scaled(3_000_000));
    assert!(echo(connect(local), &big) == big);
    for number in 0..scaled(1000) {
        let text = format!("connection {number}");
        assert_eq!(echo(connect(local), text.as_bytes()), text.as_bytes());
    }
    let socket = world.on_host(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let to = SocketAddr::new(local.ip(), 5353);
    assert_eq!(ask(&socket, to, b"datagram"), b"datagram");
    // From the outside, where that is wanted.
    for host in HOST {
        if host.contains(':') && !kind.is_whole {
            continue;
        }
        let to = SocketAddr::new(host.parse().unwrap(), 9000);
        assert_eq!(echo(world.outside(|| TcpStream::connect(to).unwrap()), b"outside"), b"outside");
    }
    let socket = world.outside(|| UdpSocket::bind((ROUTER[0], 0)).unwrap());
    assert_eq!(ask(&socket, SocketAddr::new(HOST[0].parse().unwrap(), 9053), b"outside"), b"outside");
    let to = SocketAddr::new(HOST[0].parse().unwrap(), 9083);
    let peer = echo(world.outside(|| TcpStream::connect(to).unwrap()), b"");
    let peer = String::from_utf8_lossy(&peer).into_owned();
    assert!(peer.contains(ROUTER[0]), "{peer}");
    // What is at the VM's address only is nowhere else.
    let to = SocketAddr::new(HOST[0].parse().unwrap(), 8080);
    assert!(world.outside(|| TcpStream::connect(to)).is_err());
    // A guest that resets is told, and one that does not read holds up nobody else.
    let mut reset = connect(SocketAddr::new(local.ip(), 8081));
    reset.set_read_timeout(Some(PATIENCE)).unwrap();
    // It is there at all, and gone without an end of its own.
    let error = loop {
        match reset.read(&mut [0; 10]).and_then(|_| reset.write(b"more")) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe), "{error}");
    let mut stuck = connect(SocketAddr::new(local.ip(), 8082));
    stuck.set_write_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut sent = 0_usize;
    while let Ok(written) = stuck.write(&big) {
        sent += written;
        assert!(sent < 1 << 30, "somebody takes what the guest does not read");
    }
    assert_eq!(echo(connect(local), b"another"), b"another");
    fcvm(&env, &["stop", "-t", "0", "web"]).assert_code(0);
    fcvm(&env, &["rm", "web"]).assert_code(0);
    assert_eq!(world.leftovers(), [""; 0]);
}

#[test]
fn root_vm_a_bridged_guest_and_others_reach_each_other() {
    both_ways(&BRIDGED);
}

#[test]
fn root_vm_a_rootless_guest_and_others_reach_each_other() {
    both_ways(&ROOTLESS);
}

#[test]
fn root_vm_an_uplink_that_dies_is_started_again() {
    let Some((world, env)) = world_for_vms() else { return };
    let [far, _] = OUTSIDE;
    let reach = format!("socat -u TCP4:{far}:{SOURCE} - 2> /dev/null | head -c 4 | wc -c");
    for driver in ["slirp4netns", "pasta"] {
        start(&env, "web", &["--network", "rootless", "--rootless-driver", driver, "-p", "8080:80"]);
        let address = fcvm(&env, &["port", "web", "80"]).ok();
        let local: SocketAddr =
            address.lines().find(|line| line.starts_with("127.")).unwrap().parse().unwrap();
        let is_reached = || {
            let mut stream = world.on_host(|| TcpStream::connect(local))?;
            stream.write_all(b"again")?;
            let mut answer = [0; 5];
            stream.read_exact(&mut answer).map(|()| assert_eq!(&answer, b"again"))
        };
        assert_eq!(exec(&env, "web", &reach).ok(), "4", "{driver}");
        is_reached().unwrap();
        let owner = fcvm(&env, &["inspect", "web", "--format", "{{.owner.pid}}"]).ok();
        // Also the second time.
        for _ in 0..2 {
            kill_uplink(&owner, driver);
            let script = format!("until test $({reach}) = 4; do :; done; echo reached");
            assert_eq!(exec(&env, "web", &script).ok(), "reached", "{driver}");
            while is_reached().is_err() {}
        }
        fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
        assert_eq!(world.leftovers(), [""; 0]);
    }
}

/// The stages of a start at which something of a network is there.
const STAGES: [&str; 6] =
    ["network-allocated", "namespace-made", "veth-made", "table-made", "uplink-started", "network-started"];

#[test]
fn root_vm_what_a_killed_process_left_of_its_network_is_removed() {
    let Some((world, env)) = world_for_vms() else { return };
    for mode in ["bridged", "rootless"] {
        for stage in STAGES {
            let killed = env
                .run(&["--network", mode, "-p", "8080:80", "net", "true"])
                .env("FCVM_FAILPOINT", format!("{stage}=kill"))
                .run();
            let passed = matches!(
                (mode, stage),
                ("bridged", "uplink-started") | ("rootless", "veth-made" | "table-made")
            );
            assert_eq!(killed.status.success(), passed, "{mode} {stage}: {}", killed.stderr);
            env.wait_for_processes();
            fcvm(&env, &["gc"]).assert_code(0);
            assert_eq!(world.leftovers(), [""; 0], "{mode} {stage}");
            env.assert_nothing_left();
        }
    }
}

/// An address outside, where the host's firewall lets nobody go.
const FORBIDDEN: &str = "198.51.100.99";

/// What Docker makes of a host, with a rule of the administrator's.
const CLOSED: &str = "iptables-nft -P FORWARD DROP
    iptables-nft -N DOCKER-USER
    iptables-nft -A FORWARD -j DOCKER-USER
    iptables-nft -A FORWARD -d 198.51.100.99 -j DROP
    ip6tables-nft -P FORWARD DROP";

#[test]
fn root_vm_a_firewall_that_passes_nothing_on_lets_vms_through_and_is_as_it_was() {
    if !needs_programs(&["iptables-nft"]) {
        return;
    }
    let Some((world, env)) = world_for_vms() else { return };
    world.configure_outside(&format!("addr add {FORBIDDEN}/32 dev lo"));
    assert_eq!(world.shell(CLOSED), "");
    let rules = || world.shell("nft --stateless list ruleset");
    let before = rules();
    start(&env, "web", &["--network", "bridged", "-p", "0.0.0.0:9000:80", "-p", "[::]:9000:80"]);
    exec(&env, "web", "until nc 127.0.0.1 80 </dev/null 2> /dev/null; do :; done").assert_code(0);
    let asked =
        |to: &str| exec(&env, "web", &format!("echo hi | socat -t 3 - {to}:{ECHO},connect-timeout=3"));
    assert_eq!(asked(&format!("TCP4:{}", OUTSIDE[0])).ok(), "hi");
    assert_eq!(asked(&format!("TCP6:[{}]", OUTSIDE[1])).ok(), "hi");
    assert_ne!(asked(&format!("TCP4:{FORBIDDEN}")).code(), 0, "what the host refuses stays refused");
    for host in HOST {
        let to = SocketAddr::new(host.parse().unwrap(), 9000);
        assert_eq!(echo(world.outside(|| TcpStream::connect(to).unwrap()), b"outside"), b"outside");
    }
    // Those who made the table understand it still.
    let seen = world.shell("iptables-nft -S FORWARD");
    assert!(seen.contains("-A FORWARD -i fcvm-") && seen.contains("-A FORWARD -o fcvm-"), "{seen}");
    fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    assert_eq!(rules(), before);
    // Nor does a killed process leave anything in it.
    let killed =
        env.run(&["--network", "bridged", "net", "true"]).env("FCVM_FAILPOINT", "table-made=kill").run();
    assert!(!killed.status.success());
    env.wait_for_processes();
    assert_ne!(rules(), before);
    fcvm(&env, &["gc"]).assert_code(0);
    assert_eq!(rules(), before);
    env.assert_nothing_left();
}

#[test]
fn root_vm_fifty_networks_at_once_are_apart_and_leave_nothing() {
    let Some((world, env)) = world_for_vms() else { return };
    for mode in ["bridged", "rootless"] {
        let start = |_| {
            let run = env.run(&["--network", mode, "-p", "8080:80", "net", "true"]);
            run.env("FCVM_FAILPOINT", "network-started=stop").spawn()
        };
        let running: Vec<_> = (0..50).map(start).collect();
        running.iter().for_each(Running::wait_until_stopped);
        let all = env.list();
        let published: std::collections::HashSet<_> = all.iter().map(|vm| vm["ports"].to_string()).collect();
        assert_eq!((all.len(), published.len()), (50, 50));
        for running in running {
            running.signal(rustix::process::Signal::TERM);
            running.signal(rustix::process::Signal::CONT);
            running.wait().assert_code(143);
        }
        assert_eq!(world.leftovers(), [""; 0]);
        env.assert_nothing_left();
    }
}

/// A name that only a resolver at an address of the host's loopback knows.
const OWN_NAME: &str = "own.example.com";

/// As a host finds names: by systemd-resolved, whose stub is at its loopback, or without being told how.
#[test]
fn root_vm_names_are_found_however_the_host_finds_them() {
    let Some((world, env)) = world_for_vms() else { return };
    let own: &[_] = &[(OWN_NAME, ROUTER)];
    for address in ["127.0.0.1:53", "127.0.0.53:53"] {
        answer_names(world.on_host(|| UdpSocket::bind(address).unwrap()), own);
    }
    let is_none = "rm -f /etc/resolv.conf /run/systemd/resolve/resolv.conf";
    let prepared = world.shell(&format!(
        "mount -t tmpfs none /mnt && mkdir /mnt/upper /mnt/work
         mount -t overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work none /etc
         mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/resolve
         {is_none}"
    ));
    assert_eq!(prepared, "");
    let stub = "echo nameserver 127.0.0.53 > /etc/resolv.conf";
    let behind = format!("echo nameserver {} > /run/systemd/resolve/resolv.conf", OUTSIDE[0]);
    for options in [BRIDGED.options, &["--network", "rootless"], ROOTLESS.options] {
        // Without the file this machine itself is asked, as the C library does.
        assert_eq!(world.shell(is_none), "");
        let health = ["--health-check", "http://localhost:8080/", "--health-interval=1s"];
        start(&env, "web", &[options, &health].concat());
        for (change, name, address) in [
            ("true", OWN_NAME, ROUTER[0]),
            (stub, OWN_NAME, ROUTER[0]),
            (&*behind, NAME, OUTSIDE[0]),
            ("echo '# none' > /etc/resolv.conf", OWN_NAME, ROUTER[0]),
        ] {
            assert_eq!(world.shell(change), "");
            let found = exec(&env, "web", &format!("nslookup -type=a {name}")).ok();
            assert!(found.contains(address), "{options:?} {change} {found}");
        }
        // Whatever the network is.
        exec(&env, "web", "mkdir /srv; echo well > /srv/index.html; busybox httpd -p 127.0.0.1:8080 -h /srv");
        fcvm(&env, &["wait", "--condition=healthy", "web"]).assert_code(0);
        fcvm(&env, &["rm", "-f", "web"]).assert_code(0);
    }
    assert_eq!(world.leftovers(), [""; 0]);
    env.assert_nothing_left();
}

#[test]
fn root_vm_ten_vms_have_the_same_port_each_at_its_own_address() {
    let Some((world, env)) = world_for_vms() else { return };
    for kind in [&BRIDGED, &ROOTLESS] {
        let name = |number: usize| if number == 0 { "web".to_owned() } else { format!("web-{number}") };
        let server = "exec socat TCP6-LISTEN:80,fork,reuseaddr SYSTEM:'cat /proc/sys/kernel/hostname'";
        let run =
            [kind.options, &["-d", "--name", "web", "-p", "8080:80", "net", "sh", "-c", server]].concat();
        env.run(&run).run().assert_code(0);
        exec(&env, "web", "until nc 127.0.0.1 80 < /dev/null; do :; done").assert_code(0);
        fcvm(&env, &["fork", "web", "-n", "9", "--name", "web"]).assert_code(0);
        let mut addresses = std::collections::HashSet::new();
        for vm in (0..10).map(name) {
            let port = fcvm(&env, &["port", &vm, "80"]).ok();
            let address: SocketAddr =
                port.lines().find(|line| line.starts_with("127.")).unwrap().parse().unwrap();
            assert_eq!(address.port(), 8080);
            let told = echo(world.on_host(|| TcpStream::connect(address).unwrap()), b"");
            let id = fcvm(&env, &["inspect", "--format", "{{.id}}", &vm]).ok();
            assert_eq!(String::from_utf8_lossy(&told).trim(), &id[..12], "{vm} {address}");
            addresses.insert(address);
        }
        assert_eq!(addresses.len(), 10);
        let all: Vec<_> = (0..10).map(name).collect();
        env.fcvm().args(["rm", "-f"]).args(&all).run().assert_code(0);
        assert_eq!(world.leftovers(), [""; 0]);
    }
    env.assert_nothing_left();
}

#[test]
fn root_vm_what_cannot_be_is_said_before_anything_boots() {
    let Some((world, env)) = world_for_vms() else { return };
    let taken = world.on_host(|| TcpListener::bind("198.51.100.2:7000").unwrap());
    for (arguments, code, words) in [
        (&["-p", "198.51.100.2:7000:80"][..], 125, "in use by"),
        (&["-p", "192.0.2.7:7000:80"], 125, "no address `192.0.2.7`"),
        (&["-p", "80:80:80:80"], 2, "-p"),
        (&["-p", "99999:80"], 2, "99999"),
        (&["--network", "none", "-p", "80"], 2, "--publish means nothing"),
        (&["--network", "rootless", "--ip", "10.231.0.2"], 2, "--ip means nothing"),
        (&["--network-pool", "198.51.100.0/24"], 125, "overlaps this host's route to 198.51.100.0/24"),
        (&["--egress", "no name"], 2, "no name"),
    ] {
        let output = env.run(&[arguments, &["net", "true"]].concat()).run();
        output.assert_code(code);
        assert!(output.stderr.contains(words), "{arguments:?}: {}", output.stderr);
    }
    drop(taken);
    assert_eq!(world.leftovers(), [""; 0]);
    // Without the program that makes rules.
    let changed = world.shell(
        "mount -t tmpfs none /mnt && mkdir /mnt/upper /mnt/work
         sbin=$(dirname $(readlink -f $(command -v nft)))
         mount -t overlay -o lowerdir=$sbin,upperdir=/mnt/upper,workdir=/mnt/work none $sbin
         rm $sbin/nft",
    );
    assert_eq!(changed, "");
    let output = env.run(&["net", "true"]).run();
    output.assert_code(125);
    assert!(
        output.stderr.contains("`nft`") && output.stderr.contains("apt install nftables"),
        "{}",
        output.stderr
    );
    let output = env.run(&["--network", "none", "net", "echo", "runs"]).run();
    output.assert_stdout("runs");
}
