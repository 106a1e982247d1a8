//! With both ends' sockets in this process: `tokio` only carries what is between them.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpListener as Listener, TcpStream as Stream},
    thread,
};

use tokio::task::{JoinHandle, spawn_blocking};

use super::*;

/// A relay to a port of the host, and a connection through it.
struct Relayed {
    guest: Stream,
    host: Stream,
    task: JoinHandle<()>,
}

fn forward(port: u16) -> (net::SocketAddr, JoinHandle<()>) {
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let relay = Relay::new([Forward { listener, port }]).unwrap();
    (address, tokio::spawn(relay.serve()))
}

async fn relayed() -> Relayed {
    let service = Listener::bind("127.0.0.1:0").unwrap();
    let (address, task) = forward(service.local_addr().unwrap().port());
    let (guest, host) =
        blocking(move || (Stream::connect(address).unwrap(), service.accept().unwrap().0)).await;
    Relayed { guest, host, task }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.unwrap()
}

fn reset_now(stream: Stream) {
    let stream = rustix::fd::OwnedFd::from(stream);
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
}

fn read_all(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).map(|_| bytes)
}

#[tokio::test]
async fn half_closed_connections_go_on_in_either_direction() {
    for swap in [false, true] {
        let Relayed { guest, host, task } = relayed().await;
        let (mut one, mut other) = if swap { (host, guest) } else { (guest, host) };
        blocking(move || {
            one.write_all(b"question").unwrap();
            one.shutdown(Shutdown::Write).unwrap();
            assert_eq!(read_all(&mut other).unwrap(), b"question");
            other.write_all(b"answer").unwrap();
            drop(other);
            assert_eq!(read_all(&mut one).unwrap(), b"answer");
        })
        .await;
        task.abort();
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_in_either_direction() {
    for swap in [false, true] {
        let Relayed { guest, host, task } = relayed().await;
        let (one, mut other) = if swap { (host, guest) } else { (guest, host) };
        blocking(move || {
            reset_now(one);
            assert_eq!(read_all(&mut other).unwrap_err().kind(), ErrorKind::ConnectionReset);
        })
        .await;
        task.abort();
    }
}

#[tokio::test]
async fn a_reset_after_half_a_close_is_passed_on() {
    let Relayed { guest, mut host, task } = relayed().await;
    blocking(move || {
        guest.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_all(&mut host).unwrap(), b"");
        // Nothing is read from the guest any more, and the host sends nothing.
        reset_now(guest);
        host.set_nonblocking(true).unwrap();
        let mut fds = [rustix::event::PollFd::new(&host, rustix::event::PollFlags::empty())];
        rustix::event::poll(&mut fds, None).unwrap();
        // What Linux calls a reset once the other direction has ended.
        assert_eq!(host.take_error().unwrap().unwrap().kind(), ErrorKind::BrokenPipe);
    })
    .await;
    task.abort();
}

#[tokio::test]
async fn what_was_sent_before_a_reset_arrives() {
    let Relayed { mut guest, mut host, task } = relayed().await;
    blocking(move || {
        // Unread bytes make the end of this connection a reset.
        guest.write_all(b"unread").unwrap();
        host.write_all(b"go away").unwrap();
        host.peek(&mut [0]).unwrap();
        drop(host);
        let mut bytes = [0; 7];
        guest.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"go away");
        assert_eq!(read_all(&mut guest).unwrap_err().kind(), ErrorKind::ConnectionReset);
    })
    .await;
    task.abort();
}

#[tokio::test]
async fn where_nobody_listens_the_guest_is_reset() {
    let unused = Listener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (address, task) = forward(unused);
    let kind = blocking(move || {
        let mut guest = Stream::connect(address).unwrap();
        read_all(&mut guest).unwrap_err().kind()
    });
    assert_eq!(kind.await, ErrorKind::ConnectionReset);
    task.abort();
}

#[tokio::test]
async fn a_service_on_ipv6_only_is_reached() {
    let Ok(service) = Listener::bind("[::1]:0") else { return fcvm_testkit::skip("no IPv6") };
    let (address, task) = forward(service.local_addr().unwrap().port());
    blocking(move || {
        let mut guest = Stream::connect(address).unwrap();
        service.accept().unwrap().0.write_all(b"six").unwrap();
        assert_eq!(read_all(&mut guest).unwrap(), b"six");
    })
    .await;
    task.abort();
}

/// Writes until nothing more is taken: nobody reads at the other end.
fn fill(stream: &mut Stream) -> usize {
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut written = 0;
    while let Ok(length) = stream.write(&[7; 64 << 10]) {
        written += length;
        assert!(written < 256 << 20, "somebody takes it all");
    }
    written
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody_else_and_loses_nothing() {
    let service = Listener::bind("127.0.0.1:0").unwrap();
    let (address, task) = forward(service.local_addr().unwrap().port());
    blocking(move || {
        let mut deaf = Stream::connect(address).unwrap();
        let mut writer = service.accept().unwrap().0;
        let written = fill(&mut writer);

        let mut guest = Stream::connect(address).unwrap();
        service.accept().unwrap().0.write_all(b"quick").unwrap();
        assert_eq!(read_all(&mut guest).unwrap(), b"quick");

        let reader = thread::spawn(move || read_all(&mut deaf).unwrap());
        drop(writer);
        let read = reader.join().unwrap();
        assert_eq!(read.len(), written);
        assert!(read.iter().all(|byte| *byte == 7));
    })
    .await;
    task.abort();
}

#[tokio::test]
async fn a_reset_gets_through_although_nobody_reads() {
    let Relayed { mut guest, host, task } = relayed().await;
    blocking(move || {
        fill(&mut guest);
        // The host's end has never read, and the relay is stuck with bytes for it.
        reset_now(guest);
        let mut fds = [rustix::event::PollFd::new(&host, rustix::event::PollFlags::empty())];
        rustix::event::poll(&mut fds, None).unwrap();
        assert_eq!(host.take_error().unwrap().unwrap().kind(), ErrorKind::ConnectionReset);
    })
    .await;
    task.abort();
}

#[tokio::test]
async fn connections_have_a_bound_and_free_their_place() {
    let service = Listener::bind("127.0.0.1:0").unwrap();
    let listener = Listener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let forwarded = Forward { listener, port: service.local_addr().unwrap().port() };
    let mut relay = Relay::new([forwarded]).unwrap();
    let places = Arc::new(Semaphore::new(2));
    relay.connections = places.clone();
    let task = tokio::spawn(relay.serve());
    let held = blocking(move || {
        let connect = || (Stream::connect(address).unwrap(), service.accept().unwrap().0);
        let held = [connect(), connect()];
        let mut third = Stream::connect(address).unwrap();
        assert_eq!(read_all(&mut third).unwrap_err().kind(), ErrorKind::ConnectionReset);
        held
    })
    .await;
    drop(held);
    // Both are free again, or this test does not end.
    drop(places.acquire_many(2).await.unwrap());
    task.abort();
}

#[tokio::test]
async fn the_end_of_the_relay_is_the_end_of_its_connections() {
    let Relayed { mut guest, mut host, task } = relayed().await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    blocking(move || {
        assert_eq!(read_all(&mut guest).unwrap(), b"");
        assert_eq!(read_all(&mut host).unwrap(), b"");
    })
    .await;
}
