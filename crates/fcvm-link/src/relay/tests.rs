//! Both ends, each with a stream's other end in the test's hands.

use tokio::{
    io::{DuplexStream, duplex},
    task::JoinHandle,
};

use super::*;

struct Chunks(mpsc::Receiver<Vec<u8>>);

impl Source for Chunks {
    async fn next(&mut self) -> Next {
        self.0.recv().await.map_or(Next::End, Next::Bytes)
    }
}

struct Giving {
    chunks: Option<mpsc::Sender<Vec<u8>>>,
    streams: mpsc::Sender<DuplexStream>,
    task: JoinHandle<(Given, Giver)>,
}

impl Giving {
    fn start(mut giver: Giver) -> Self {
        let (chunks, source) = mpsc::channel(1);
        let (streams, mut coming) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let given = giver.give(&mut coming, &mut Chunks(source)).await;
            (given, giver)
        });
        Self { chunks: Some(chunks), streams, task }
    }

    async fn put(&self, bytes: &[u8]) {
        self.chunks.as_ref().unwrap().send(bytes.to_vec()).await.unwrap();
    }

    /// A taker's end of another stream, with what it says of itself.
    async fn attach(&self, taker: u64, taken: u64) -> DuplexStream {
        let (ours, mut theirs) = duplex(100);
        self.streams.send(ours).await.unwrap();
        theirs.write_all(&opening(taker, taken)).await.unwrap();
        theirs
    }
}

fn piece(bytes: &[u8]) -> Vec<u8> {
    [&header(bytes)[..], bytes].concat()
}

/// The next bytes, so many at least; fewer where the end comes.
async fn take(stream: &mut DuplexStream, least: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < least {
        let mut header = [0; HEADER];
        stream.read_exact(&mut header).await.unwrap();
        let mut piece = vec![0; piece_length(header).unwrap()];
        if piece.is_empty() {
            break;
        }
        stream.read_exact(&mut piece).await.unwrap();
        bytes.extend(piece);
    }
    bytes
}

async fn number(stream: &mut DuplexStream) -> u64 {
    let mut number = [0; ACCOUNT];
    stream.read_exact(&mut number).await.unwrap();
    u64::from_le_bytes(number)
}

#[tokio::test]
async fn the_next_stream_goes_on_where_the_taker_is() {
    let mut giving = Giving::start(Giver::default());
    // What came before was another giver's.
    let mut first = giving.attach(7, 1000).await;
    giving.put(b"one two three").await;
    assert_eq!(take(&mut first, 13).await, b"one two three");
    first.write_all(&1004_u64.to_le_bytes()).await.unwrap();
    drop(first);
    let mut second = giving.attach(7, 1008).await;
    assert_eq!(take(&mut second, 5).await, b"three");
    // One that comes while another seems to be well takes its place.
    let mut third = giving.attach(7, 1008).await;
    giving.put(b" four").await;
    assert_eq!(take(&mut third, 10).await, b"three four");
    giving.chunks = None;
    assert_eq!(take(&mut third, 1).await, b"");
    drop(third);
    // The end comes again as well, until it is known to be taken.
    let mut fourth = giving.attach(7, 1018).await;
    assert_eq!(take(&mut fourth, 1).await, b"");
    fourth.write_all(&1019_u64.to_le_bytes()).await.unwrap();
    assert_eq!(giving.task.await.unwrap().0, Given::Over);
}

#[tokio::test]
async fn another_taker_gets_what_none_was_given() {
    let mut giving = Giving::start(Giver::default());
    let mut first = giving.attach(1, 0).await;
    giving.put(b"the source's").await;
    assert_eq!(take(&mut first, 12).await, b"the source's");
    drop(first);
    let mut clone = giving.attach(2, 0).await;
    giving.put(b"the clone's").await;
    assert_eq!(take(&mut clone, 11).await, b"the clone's");
    giving.chunks = None;
    assert_eq!(take(&mut clone, 1).await, b"");
    clone.write_all(&12_u64.to_le_bytes()).await.unwrap();
    let (given, giver) = giving.task.await.unwrap();
    assert_eq!((given, giver.taker()), (Given::Over, Some(2)));
    // What is left of it is nobody's stream.
    let giving = Giving::start(Giver::after(giver.taker()));
    let stale = giving.attach(2, 12).await;
    giving.put(b"the next run's").await;
    let mut next = giving.attach(3, 0).await;
    assert_eq!(take(&mut next, 14).await, b"the next run's");
    drop(stale);
}

#[tokio::test]
async fn an_account_that_cannot_be_ends_it() {
    for account in [0_u64, 15, u64::MAX] {
        let giving = Giving::start(Giver::default());
        let mut stream = giving.attach(1, 10).await;
        giving.put(b"1234").await;
        assert_eq!(take(&mut stream, 4).await, b"1234");
        stream.write_all(&account.to_le_bytes()).await.unwrap();
        assert_eq!(giving.task.await.unwrap().0, Given::Violation, "{account}");
    }
}

#[tokio::test]
async fn only_so_much_is_given_ahead() {
    let giving = Giving::start(Giver::default());
    let (ours, mut stream) = duplex(2 * AHEAD);
    giving.streams.send(ours).await.unwrap();
    stream.write_all(&opening(1, 0)).await.unwrap();
    let chunk = vec![7; AHEAD / 2];
    giving.put(&chunk).await;
    giving.put(&chunk).await;
    assert_eq!(take(&mut stream, AHEAD).await.len(), AHEAD);
    // One more waits in the channel.
    giving.put(&chunk).await;
    let chunks = giving.chunks.as_ref().unwrap();
    tokio::task::yield_now().await;
    assert!(chunks.try_send(chunk.clone()).is_err());
    stream.write_all(&1_u64.to_le_bytes()).await.unwrap();
    assert_eq!(take(&mut stream, AHEAD / 2).await.len(), AHEAD / 2);
    giving.put(&chunk).await;
}

#[tokio::test]
async fn who_takes_goes_on_over_the_next_stream() {
    let (streams, coming) = mpsc::channel(2);
    let mut taker = Taker::new(7, coming);
    let mut chunk = [0; 4];
    let (mut first, other) = duplex(64);
    streams.send(other).await.unwrap();
    // Half of a piece, cut in the middle of a header.
    first.write_all(&[&piece(b"hello")[..], &piece(b"abc")[..2]].concat()).await.unwrap();
    assert_eq!(taker.read(&mut chunk).await.unwrap(), 4);
    assert_eq!(&chunk, b"hell");
    assert_eq!(taker.read(&mut chunk).await.unwrap(), 1);
    assert_eq!((number(&mut first).await, number(&mut first).await), (7, 0));
    drop(first);
    let (mut second, other) = duplex(64);
    streams.send(other).await.unwrap();
    second.write_all(&piece(b"abc")).await.unwrap();
    assert_eq!(taker.read(&mut chunk).await.unwrap(), 3);
    assert_eq!((&chunk[..3], number(&mut second).await, number(&mut second).await), (&b"abc"[..], 7, 5));
    // One that comes while another seems to be well takes its place.
    let (mut third, other) = duplex(64);
    streams.send(other).await.unwrap();
    third.write_all(&[piece(b"x"), piece(b"")].concat()).await.unwrap();
    assert_eq!(taker.read(&mut chunk).await.unwrap(), 1);
    assert_eq!(taker.read(&mut chunk).await.unwrap(), 0);
    assert_eq!([number(&mut third).await, number(&mut third).await, number(&mut third).await], [7, 8, 10]);
    assert_eq!(taker.read(&mut chunk).await.unwrap(), 0, "the end stays the end");
    // Who has not heard that hears it.
    let (mut fourth, other) = duplex(64);
    streams.send(other).await.unwrap();
    tokio::select! {
        () = taker.linger() => unreachable!(),
        said = async { (number(&mut fourth).await, number(&mut fourth).await) } => assert_eq!(said, (7, 10)),
    }
}

#[tokio::test]
async fn accounts_come_while_much_is_taken() {
    let (streams, coming) = mpsc::channel(1);
    let mut taker = Taker::new(7, coming);
    let (mut stream, other) = duplex(1 << 20);
    streams.send(other).await.unwrap();
    for _ in 0..3 {
        stream.write_all(&piece(&[1; MAX_PIECE])).await.unwrap();
    }
    stream.write_all(&piece(b"")).await.unwrap();
    drop(streams);
    let mut all = Vec::new();
    assert_eq!(taker.read_to_end(&mut all).await.unwrap(), 3 * MAX_PIECE);
    assert_eq!((number(&mut stream).await, number(&mut stream).await), (7, 0));
    let mut last = 0;
    while last < 3 * MAX_PIECE as u64 + 1 {
        let next = number(&mut stream).await;
        assert!(next > last);
        last = next;
    }
}

#[tokio::test]
async fn a_piece_that_cannot_be_is_not_read() {
    let (streams, coming) = mpsc::channel(1);
    let mut taker = Taker::new(7, coming);
    let (mut first, other) = duplex(64);
    streams.send(other).await.unwrap();
    first.write_all(&[255; HEADER]).await.unwrap();
    drop(streams);
    assert_eq!(taker.read(&mut [0; 4]).await.unwrap(), 0);
    assert!(!taker.is_over && taker.current.is_none());
}
