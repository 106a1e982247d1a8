//! The proxy between a guest's sockets and test resolvers.

mod hostile;
mod names;
mod resolver;

use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use tokio::net::UdpSocket;

use self::resolver::{Guest, PATIENCE, Resolver, a, addresses, answer, failure, question, reply};
use super::{HostResolvers, Policy, Upstream, exchange::Transport};

#[tokio::test]
async fn a_question_is_answered_with_its_own_id() {
    let resolver = Resolver::with([192, 0, 2, 1]).await;
    let guest = Guest::of([resolver.address]).await;
    for id in [0, 7, 0xffff] {
        let answer = guest.ask(id, "a.example.").await;
        assert_eq!(answer.metadata.id, id);
        assert_eq!(addresses(&answer), ["192.0.2.1"]);
    }
}

#[tokio::test]
async fn answers_too_long_for_a_datagram_come_by_tcp() {
    let resolver = Resolver::start(|query, transport| match transport {
        Transport::Udp => vec![reply(query).truncate().to_vec().unwrap()],
        Transport::Tcp => vec![answer(query, (0..=255).map(|last| a([192, 0, 2, last])))],
    })
    .await;
    let guest = Guest::of([resolver.address]).await;
    let short = guest.ask(1, "long.example.").await;
    assert!(short.metadata.truncation && short.answers.is_empty());
    let long = guest.ask_by_tcp(&question(2, "long.example.")).await;
    assert!(long.len() > 4096);
    assert_eq!(addresses(&Message::from_vec(&long).unwrap()).len(), 256);
}

#[tokio::test]
async fn a_silent_server_is_followed_by_the_next_which_is_remembered() {
    let (silent, good) = (Resolver::silent().await, Resolver::with([192, 0, 2, 2]).await);
    let guest = Guest::of([silent.address, good.address]).await;
    let begin = Instant::now();
    assert_eq!(addresses(&guest.ask(1, "a.example.").await), ["192.0.2.2"]);
    assert!(begin.elapsed() >= PATIENCE, "the first is asked first");
    let asked = silent.asked();
    for id in 2..20 {
        assert_eq!(addresses(&guest.ask(id, "a.example.").await), ["192.0.2.2"]);
    }
    assert_eq!(silent.asked(), asked, "nobody waits for it again");
}

#[tokio::test]
async fn a_server_that_is_gone_costs_no_time_by_either_way() {
    let gone = Resolver::silent().await.gone().await;
    let good = Resolver::with([192, 0, 2, 2]).await;
    let far = |address| {
        // Were it waited for, this test would not end in its time.
        super::exchange::Upstreams::new(Upstream::Servers(address)).with_patience(Duration::from_secs(600))
    };
    let query = super::message::Query::parse(&question(1, "a.example.")).unwrap();
    for transport in [Transport::Udp, Transport::Tcp] {
        let answer = far(vec![gone, good.address]).ask(&query, transport).await.unwrap();
        assert_eq!(addresses(&Message::from_vec(&answer).unwrap()), ["192.0.2.2"]);
        assert_eq!(far(vec![gone]).ask(&query, transport).await, None);
        assert_eq!(far(Vec::new()).ask(&query, transport).await, None);
    }
}

#[tokio::test]
async fn where_all_are_silent_the_guest_is_told() {
    let silent = Resolver::silent().await;
    let guest = Guest::of([silent.address]).await;
    let answer = guest.ask(5, "a.example.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((answer.metadata.id, answer.queries.len()), (5, 1));
    assert!(silent.asked() > 1, "a datagram may be lost");
}

#[tokio::test]
async fn a_server_that_cannot_tell_is_followed_by_the_next_and_not_forgotten() {
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        let unable = Resolver::start(move |query, _| vec![failure(query, code)]).await;
        let good = Resolver::with([192, 0, 2, 2]).await;
        let guest = Guest::of([unable.address, good.address]).await;
        for id in [1, 2] {
            assert_eq!(addresses(&guest.ask(id, "a.example.").await), ["192.0.2.2"]);
        }
        assert_eq!(unable.asked(), 2, "it may know other names");
        // Where no other knows, its answer is the guest's.
        let guest = Guest::of([unable.address]).await;
        assert_eq!(guest.ask(3, "a.example.").await.metadata.response_code, code);
    }
}

#[tokio::test]
async fn that_there_is_no_such_name_is_an_answer() {
    let first = Resolver::start(|query, _| vec![failure(query, ResponseCode::NXDomain)]).await;
    let second = Resolver::with([192, 0, 2, 2]).await;
    let guest = Guest::of([first.address, second.address]).await;
    assert_eq!(guest.ask(1, "no.example.").await.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(second.asked(), 0);
}

#[tokio::test]
async fn answers_to_other_questions_are_passed_over() {
    let resolver = Resolver::start(|query, _| {
        let mut other_id = query.clone();
        other_id.metadata.id ^= 1;
        let mut other_name = Message::from_vec(&question(query.metadata.id, "other.example.")).unwrap();
        other_name.metadata.id = query.metadata.id;
        vec![
            b"x".to_vec(),
            query.to_vec().unwrap(),
            answer(&other_id, [a([198, 51, 100, 1])]),
            answer(&other_name, [a([198, 51, 100, 2])]),
            answer(query, [a([192, 0, 2, 1])]),
        ]
    })
    .await;
    let guest = Guest::of([resolver.address]).await;
    assert_eq!(addresses(&guest.ask(1, "a.example.").await), ["192.0.2.1"]);
}

#[tokio::test]
async fn a_late_answer_of_the_first_still_counts() {
    let [first, second] = [(); 2].map(|()| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    let guest = Guest::of([&first, &second].map(|socket| socket.local_addr().unwrap())).await;
    let servers = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 512];
        let (length, from) = first.recv_from(&mut buffer).unwrap();
        second.recv_from(&mut [0; 512]).unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        first.send_to(&answer(&query, [a([192, 0, 2, 1])]), from).unwrap();
        (first, second)
    });
    assert_eq!(addresses(&guest.ask(1, "a.example.").await), ["192.0.2.1"]);
    drop(servers.await.unwrap());
}

#[tokio::test]
async fn the_ids_that_upstreams_see_are_not_the_guests() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let ids = seen.clone();
    let resolver = Resolver::start(move |query, _| {
        ids.lock().unwrap().push(query.metadata.id);
        vec![answer(query, [a([192, 0, 2, 1])])]
    })
    .await;
    let guest = Guest::of([resolver.address]).await;
    for _ in 0..8 {
        guest.ask(0x1234, "a.example.").await;
    }
    let seen = seen.lock().unwrap();
    assert!(seen.iter().any(|id| *id != seen[0]), "{seen:?}");
}

#[tokio::test]
async fn root_the_hosts_resolvers_are_those_of_the_moment() {
    // Port 53 of an address of the host's loopback: a resolver there needs root.
    if !fcvm_testkit::needs_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("resolv.conf");
    let host = HostResolvers::at(&path, directory.path().join("none"));
    std::fs::write(&path, "nameserver 127.93.17.1\n").unwrap();
    let guest = Guest::with(Upstream::Host(host), Policy::Anything).await;
    assert_eq!(guest.ask(1, "a.example.").await.metadata.response_code, ResponseCode::ServFail);
    let Ok(resolver) = UdpSocket::bind("127.93.17.2:53").await else {
        return fcvm_testkit::skip("port 53 is taken");
    };
    let answers = async {
        let mut buffer = [0; 512];
        let (length, from) = resolver.recv_from(&mut buffer).await.unwrap();
        let query = Message::from_vec(&buffer[..length]).unwrap();
        resolver.send_to(&answer(&query, [a([192, 0, 2, 9])]), from).await.unwrap();
    };
    std::fs::write(&path, "nameserver 127.93.17.2\n# a VPN came\n").unwrap();
    let (answer, ()) = tokio::join!(guest.ask(2, "a.example."), answers);
    assert_eq!(addresses(&answer), ["192.0.2.9"]);
}
