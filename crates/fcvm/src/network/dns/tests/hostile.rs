//! Guests that mean no good.

use std::time::Duration;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    super::{Policy, Upstream, exchange::framed, proxy::Limits},
    resolver::{Guest, Resolver, a, addresses, answer, question, read},
};

#[test]
fn no_datagram_costs_the_next_question_its_answer() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (_resolver, guest) = runtime.block_on(async {
        let resolver = Resolver::with([192, 0, 2, 1]).await;
        let guest = Guest::of([resolver.address]).await;
        (resolver, guest)
    });
    let mutated = (0..40_usize, any::<u8>()).prop_map(|(at, byte)| {
        let mut bytes = question(0xdead, "evil.example.");
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes
    });
    let hostile = prop_oneof![proptest::collection::vec(any::<u8>(), 0..600), mutated];
    let mut runner = TestRunner::new(Config::with_cases(128));
    runner
        .run(&proptest::collection::vec(hostile, 1..5), |datagrams| {
            runtime.block_on(async {
                for datagram in datagrams {
                    guest.socket.send(&datagram).await.unwrap();
                }
                // Whatever those got, this one has its answer.
                guest.socket.send(&question(0xbeef, "good.example.")).await.unwrap();
                let mut buffer = [0; 4096];
                loop {
                    let length = guest.socket.recv(&mut buffer).await.unwrap();
                    let asked = &question(0xbeef, "good.example.")[12..];
                    if buffer[..2] == [0xbe, 0xef] && buffer[12..length].starts_with(asked) {
                        break;
                    }
                }
            });
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn too_long_a_query_gets_nothing_by_either_way() {
    let resolver = Resolver::with([192, 0, 2, 1]).await;
    let guest = Guest::of([resolver.address]).await;
    let mut long = question(1, "a.example.");
    long.resize(4097, 0);
    guest.socket.send(&long).await.unwrap();
    assert_eq!(guest.ask(2, "a.example.").await.metadata.id, 2);
    let mut stream = TcpStream::connect(guest.proxy).await.unwrap();
    stream.write_all(&framed(&long)).await.unwrap();
    assert!(stream.read_u8().await.is_err());
    assert_eq!(resolver.asked(), 1);
}

#[tokio::test]
async fn connections_that_nobody_uses_make_room() {
    let resolver = Resolver::with([192, 0, 2, 1]).await;
    let upstream = Upstream::Servers(vec![resolver.address]);
    let limits = Limits { connections: 2, idle: Duration::from_millis(500), ..Limits::default() };
    let guest = Guest::limited(upstream, Policy::Anything, limits).await;
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(guest.proxy).await.unwrap();
        // Half of a length; on a slow machine this one may be ended already.
        stream.write_all(&[0]).await.ok();
        idle.push(stream);
    }
    // Datagrams have nothing to do with it, and the next connection has its turn.
    assert_eq!(addresses(&guest.ask(1, "a.example.").await), ["192.0.2.1"]);
    guest.ask_by_tcp(&question(2, "a.example.")).await;
    for mut stream in idle {
        assert!(stream.read_u8().await.is_err());
    }
}

#[tokio::test]
async fn who_asks_and_does_not_read_is_left() {
    let resolver =
        Resolver::start(|query, _| vec![answer(query, (0..=255).map(|last| a([192, 0, 2, last])))]).await;
    let upstream = Upstream::Servers(vec![resolver.address]);
    let limits = Limits { idle: Duration::from_secs(2), ..Limits::default() };
    let guest = Guest::limited(upstream, Policy::Anything, limits).await;
    let mut deaf = TcpStream::connect(guest.proxy).await.unwrap();
    let query = framed(&question(1, "a.example."));
    // Until the proxy has enough of it: the sockets hold some thousand answers.
    let mut asked = 0_usize;
    while deaf.write_all(&query).await.is_ok() {
        asked += 1;
        assert!(asked < 1 << 20, "questions are taken for ever");
    }
    // Nobody else notices.
    let mut other = TcpStream::connect(guest.proxy).await.unwrap();
    other.write_all(&query).await.unwrap();
    assert!(read(&mut other).await.unwrap().len() > 4096);
}

#[tokio::test]
async fn more_questions_than_are_passed_on_at_once_wait() {
    let silent = Resolver::silent().await;
    let good = Resolver::with([192, 0, 2, 1]).await;
    let upstream = Upstream::Servers(vec![silent.address, good.address]);
    let guest = Guest::limited(upstream, Policy::Anything, Limits { queries: 2, ..Limits::default() }).await;
    // The first two wait for the silent one; the socket keeps the rest meanwhile.
    for id in 0..20 {
        guest.socket.send(&question(id, "a.example.")).await.unwrap();
    }
    let mut seen = std::collections::HashSet::new();
    while seen.len() < 20 {
        let answer = guest.receive().await;
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
        seen.insert(answer.metadata.id);
    }
    assert!(silent.asked() <= 2, "nothing is begun for those that wait");
}
