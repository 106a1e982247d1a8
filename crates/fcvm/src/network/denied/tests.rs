use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
    process::{Child, Command, Stdio},
    thread,
};

use etherparse::PacketBuilder;
use proptest::prelude::*;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::*;

fn tcp(port: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4([10, 0, 2, 100], [192, 0, 2, 1], 64).tcp(40000, port, 1, 1000);
    builder.write(&mut packet, &[0; 200]).unwrap();
    packet
}

fn parse(packet: &[u8]) -> Option<(String, String)> {
    let denied = Denied::parse(packet, "egress".into())?;
    Some((denied.protocol.to_string(), denied.place()))
}

fn said(protocol: &str, place: &str) -> Option<(String, String)> {
    Some((protocol.into(), place.into()))
}

#[test]
fn packets_are_read_although_cut_short() {
    assert_eq!(parse(&tcp(443)), said("tcp", "192.0.2.1:443"));
    assert_eq!(parse(&tcp(443)[..24]), said("tcp", "192.0.2.1:443"));
    assert_eq!(parse(&tcp(443)[..22]), said("tcp", "192.0.2.1"));
    assert_eq!(parse(&tcp(443)[..19]), None);
    let mut udp = Vec::new();
    let from = "fd00:fc::100".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let to = "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets();
    PacketBuilder::ipv6(from, to, 64).udp(1, 53).write(&mut udp, b"x").unwrap();
    assert_eq!(parse(&udp), said("udp", "[2001:db8::1]:53"));
    let mut ping = Vec::new();
    PacketBuilder::ipv6(from, to, 64).icmpv6_echo_request(1, 1).write(&mut ping, b"x").unwrap();
    assert_eq!(parse(&ping), said("icmp", "2001:db8::1"));
}

#[test]
fn pieces_have_no_ports_and_other_protocols_have_numbers() {
    let mut piece = tcp(443);
    // At byte 800 of the whole.
    piece[7] = 100;
    assert_eq!(parse(&piece), said("tcp", "192.0.2.1"));
    let mut other = tcp(443);
    other[9] = 132;
    assert_eq!(parse(&other), said("protocol 132", "192.0.2.1"));
}

/// A message as the kernel makes it.
fn message(packet: &[u8]) -> Vec<u8> {
    let inner = ULogMessage::Packet(vec![
        PacketNla::Prefix(c"egress: ".into()),
        PacketNla::Mark(1),
        PacketNla::Payload(packet.into()),
    ]);
    let header = netlink_packet_netfilter::NetfilterHeader::new(NetfilterProtoFamily::IPv4, 0, 7);
    let mut message =
        NetlinkMessage::new(Default::default(), NetlinkPayload::from(NetfilterMessage::new(header, inner)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
    message.serialize(&mut bytes);
    bytes
}

#[test]
fn several_packets_come_at_once() {
    let batch = [message(&tcp(1)), message(b"no packet"), message(&tcp(2)[..41])].concat();
    let found: Vec<_> = packets(&batch).into_iter().map(|denied| (denied.port, denied.prefix)).collect();
    assert_eq!(found, [(Some(1), "egress:".to_owned()), (Some(2), "egress:".to_owned())]);
}

proptest! {
    #[test]
    fn nothing_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        version in prop_oneof![Just(0x45_u8), Just(0x4f), Just(0x60), any::<u8>()],
        cut in 0..100_usize,
        at in 0..100_usize,
    ) {
        let packet = [&[version], &bytes[..]].concat();
        Denied::parse(&packet, String::new());
        prop_assert!(packets(&message(&packet)).len() <= 1);
        packets(&bytes);
        let mut broken = message(&tcp(1));
        broken[at] = version;
        packets(&broken[..cut]);
        packets(&broken);
    }
}

/// A process with a network namespace of its own, which ends with its input.
struct Namespace(Child);

impl Namespace {
    fn new() -> Self {
        let mut command = Command::new("unshare");
        command.args(["-n", "sh", "-c", "echo ready; exec cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    /// Works in a thread that is in it.
    fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = fs_err::File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let enter = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        thread::spawn(enter).join().unwrap()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

fn run(program: &str, arguments: &[&str], input: &str) {
    let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

const RULES: &str = "
table inet test {
    chain out {
        type filter hook output priority 0
        udp dport 9 log prefix \"egress: \" group 7 drop
        tcp dport 9 log prefix \"egress: \" group 7 reject with tcp reset
        udp dport 10 log prefix \"other\" group 8 drop
    }
}";

#[test]
fn root_what_the_kernel_refuses_is_told() {
    if !fcvm_testkit::needs_root() || !fcvm_testkit::needs_programs(&["unshare", "nft", "ip"]) {
        return;
    }
    let namespace = Namespace::new();
    let socket = namespace.within(|| {
        run("ip", &["link", "set", "lo", "up"], "");
        run("nft", &["-f", "-"], RULES);
        let socket = open(7).unwrap();
        // The group is ours alone.
        assert_eq!(open(7).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for port in [10, 9] {
            let refused = sender.send_to(b"hello", (Ipv4Addr::LOCALHOST, port)).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        }
        std::net::TcpStream::connect("[::1]:9").unwrap_err();
        socket
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let found = runtime.block_on(async {
        let mut log = Log::new(socket).unwrap();
        let mut found = Vec::new();
        while found.len() < 2 {
            found.extend(log.next().await.unwrap());
        }
        found
    });
    let expected = [("udp", "127.0.0.1:9"), ("tcp", "[::1]:9")];
    let told: Vec<_> = found.iter().map(|denied| (denied.protocol.to_string(), denied.place())).collect();
    assert_eq!(told, expected.map(|(protocol, place)| (protocol.into(), place.into())));
    assert!(found.iter().all(|denied| denied.prefix == "egress:"));
}
