//! Conversations over networks, and servers that say what they hear.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// Longest wait for bytes. A safety net: nothing comes near it unless it is lost.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// What comes back of what is sent, to the end of both directions, one after the other.
#[must_use]
pub fn echo(stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut writer, mut reader) = (stream.try_clone().unwrap(), stream);
    thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(bytes).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        all
    })
}

/// The answer to a datagram.
#[must_use]
pub fn ask(socket: &UdpSocket, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(bytes, to).unwrap();
    let mut answer = vec![0; 65_536];
    let (length, _) = socket.recv_from(&mut answer).unwrap();
    answer.truncate(length);
    answer
}

/// Serves each connection on a thread of its own, until the test ends.
pub fn serve(listener: TcpListener, each: impl Fn(TcpStream) + Send + Sync + Copy + 'static) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            thread::spawn(move || each(stream));
        }
    });
}

/// Sends back what comes by connections.
pub fn echo_tcp(listener: TcpListener) {
    serve(listener, |mut stream| {
        let mut copy = stream.try_clone().unwrap();
        // A client that breaks off is the test's affair.
        drop(io::copy(&mut stream, &mut copy).and_then(|_| copy.shutdown(Shutdown::Write)));
    });
}

/// Sends back datagrams.
pub fn echo_udp(socket: UdpSocket) {
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            drop(socket.send_to(&buffer[..length], from));
        }
    });
}

/// Answers questions for these names, whose addresses are of version 4 and of version 6, and that there is no other;
/// until the test ends.
pub fn answer_names(socket: UdpSocket, names: &'static [(&str, [&str; 2])]) {
    thread::spawn(move || resolver(&socket, names));
}

fn resolver(socket: &UdpSocket, names: &[(&str, [&str; 2])]) {
    let mut query = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut query) {
        let query = &query[..length];
        let mut labels = Vec::new();
        let mut at = 12;
        while let Some(&length @ 1..) = query.get(at) {
            let end = at + 1 + usize::from(length);
            labels.push(String::from_utf8_lossy(&query[at + 1..end]).to_lowercase());
            at = end;
        }
        let kind = query[at + 2];
        let name = labels.join(".");
        let addresses = names.iter().find_map(|(known, addresses)| (*known == name).then_some(*addresses));
        let mut answer = query[..at + 5].to_vec();
        answer[2] = 0x81;
        answer[3] = if addresses.is_some() { 0x80 } else { 0x83 };
        answer[6..12].fill(0);
        let data = addresses.and_then(|[v4, v6]| match kind {
            1 => Some(v4.parse::<Ipv4Addr>().unwrap().octets().to_vec()),
            28 => Some(v6.parse::<Ipv6Addr>().unwrap().octets().to_vec()),
            _ => None,
        });
        if let Some(data) = data {
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, u8::try_from(data.len()).unwrap()]);
            answer.extend(data);
        }
        socket.send_to(&answer, from).ok();
    }
}
