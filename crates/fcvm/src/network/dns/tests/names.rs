//! Guests that may ask for certain names only.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RecordType},
};
use tokio::sync::Semaphore;

use super::{
    super::{Learn, Learning, Names, Policy, Upstream},
    resolver::{Guest, Resolver, a, addresses, question},
};

/// Who hears of addresses, and lets them through when the test says so.
struct Learner {
    heard: Mutex<Vec<(IpAddr, Duration)>>,
    arrived: Semaphore,
    let_through: Semaphore,
}

impl Learner {
    fn new(let_through: usize) -> Arc<Self> {
        let [arrived, let_through] = [0, let_through].map(Semaphore::new);
        Arc::new(Self { heard: Mutex::default(), arrived, let_through })
    }
}

impl Learn for Learner {
    fn learn<'a>(&'a self, addresses: &'a [(IpAddr, Duration)]) -> Learning<'a> {
        Box::pin(async move {
            self.heard.lock().unwrap().extend(addresses);
            self.arrived.add_permits(1);
            self.let_through.acquire().await.map_err(io::Error::other)?.forget();
            Ok(())
        })
    }
}

async fn guest(resolver: &Resolver, names: &[&str], learner: &Arc<Learner>) -> Guest {
    let policy = Policy::Only(Names::new(names).unwrap(), learner.clone());
    Guest::with(Upstream::Servers(vec![resolver.address]), policy).await
}

#[tokio::test]
async fn other_names_are_refused_and_never_asked_for() {
    let resolver = Resolver::with([192, 0, 2, 1]).await;
    let learner = Learner::new(0);
    let guest = guest(&resolver, &["good.example", "*.below.example"], &learner).await;
    for name in ["bad.example.", "below.example.", "www.good.example.", "good.example.net.", "."] {
        let answer = guest.ask(9, name).await;
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{name}");
        assert_eq!(answer.metadata.id, 9);
    }
    let refused = Message::from_vec(&guest.ask_by_tcp(&question(9, "bad.example.")).await).unwrap();
    assert_eq!(refused.metadata.response_code, ResponseCode::Refused);
    // Another class has other addresses, of whom nobody knows what they mean.
    let mut chaos = Message::new(9, MessageType::Query, OpCode::Query);
    let mut query = Query::query(Name::from_ascii("good.example.").unwrap(), RecordType::TXT);
    query.set_query_class(DNSClass::CH);
    chaos.add_query(query);
    guest.socket.send(&chaos.to_vec().unwrap()).await.unwrap();
    assert_eq!(guest.receive().await.metadata.response_code, ResponseCode::Refused);
    assert_eq!(resolver.asked(), 0);
    assert!(learner.heard.lock().unwrap().is_empty());
}

#[tokio::test]
async fn addresses_are_let_through_before_the_guest_hears_of_them() {
    let resolver = Resolver::with([192, 0, 2, 1]).await;
    let learner = Learner::new(0);
    let guest = guest(&resolver, &["*.good.example"], &learner).await;
    guest.socket.send(&question(1, "WWW.good.example.")).await.unwrap();
    learner.arrived.acquire().await.unwrap().forget();
    assert_eq!(*learner.heard.lock().unwrap(), [([192, 0, 2, 1].into(), Duration::from_secs(300))]);
    let early = guest.socket.try_recv(&mut [0; 512]).unwrap_err();
    assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
    learner.let_through.add_permits(1);
    assert_eq!(addresses(&guest.receive().await), ["192.0.2.1"]);
}

#[tokio::test]
async fn an_address_that_cannot_be_let_through_is_not_told() {
    let resolver = Resolver::with([192, 0, 2, 1]).await;
    let learner = Learner::new(0);
    learner.let_through.close();
    let guest = guest(&resolver, &["good.example"], &learner).await;
    let answer = guest.ask(1, "good.example.").await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
    assert!(answer.answers.is_empty());
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_not_told() {
    let resolver = Resolver::start(|query, _| {
        let mut bytes = super::answer(query, [a([192, 0, 2, 1])]);
        bytes.pop();
        vec![bytes]
    })
    .await;
    let learner = Learner::new(9);
    let guest = guest(&resolver, &["good.example"], &learner).await;
    assert_eq!(guest.ask(1, "good.example.").await.metadata.response_code, ResponseCode::ServFail);
    assert!(learner.heard.lock().unwrap().is_empty());
}
