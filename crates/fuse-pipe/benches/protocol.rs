//! What frames cost, without a kernel or a wake-up: by criterion.
//!
//! `greeting`: the first words, made and understood. `requests`: a batch of requests, written at once to a
//! server with one worker, and its replies: parsing, the file system's call, the reply, and a batch's share
//! of two system calls. `unknown` does nothing between: it is the frames' own cost.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::{
    fs,
    hint::black_box,
    io::{Read as _, Write as _},
    num::NonZero,
    os::unix::net::UnixStream,
    thread,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fuse_pipe::{
    hello::{Hello, MountId, Welcome},
    passthrough::{Options, Passthrough},
    server::Server,
    stream::Stream,
};

/// Requests written at once: their frames and replies fit into a socket's buffer.
const BATCH: usize = 32;

const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const WRITE: u32 = 16;
const INIT: u32 = 26;
/// No operation has this number.
const UNKNOWN: u32 = 4000;
const ROOT: u64 = 1;
/// `fuse_in_header` and `fuse_out_header`, in bytes.
const REQUEST: usize = 40;
const REPLY: usize = 16;

fn greeting(criterion: &mut Criterion) {
    let hello = Hello { lane: 1, lanes: 4, mount: MountId([7; 16]) };
    let mut group = criterion.benchmark_group("greeting");
    group.bench_function("hello", |bencher| {
        bencher.iter(|| Hello::decode(&black_box(&hello).encode()).unwrap());
    });
    group.bench_function("welcome", |bencher| {
        bencher.iter(|| Welcome::decode(&Welcome::accepted(black_box(1 << 20)).encode()).unwrap());
    });
    group.finish();
}

/// A client that is no kernel.
struct Client(UnixStream);

impl Client {
    fn new(files: Passthrough) -> Self {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let server = Server::new(files).with_workers(NonZero::<usize>::MIN);
        thread::spawn(move || server.serve(Stream::new(theirs).unwrap()));
        Hello { lane: 0, lanes: 1, mount: MountId([7; 16]) }.send(&mut ours).unwrap();
        Welcome::receive(&mut ours).unwrap().taken().unwrap();
        let mut client = Self(ours);
        client.ask(&frame(INIT, 0, &[7_u32, 38, 0, 0].map(u32::to_ne_bytes).concat()));
        client
    }

    /// The body of a reply.
    fn ask(&mut self, frame: &[u8]) -> Vec<u8> {
        self.0.write_all(frame).unwrap();
        let mut header = [0; REPLY];
        self.0.read_exact(&mut header).unwrap();
        let length = u32::from_ne_bytes(header[..4].try_into().unwrap()) as usize;
        let mut body = vec![0; length - REPLY];
        self.0.read_exact(&mut body).unwrap();
        body
    }

    /// Sends all at once; so many bytes come back.
    fn exchange(&mut self, frames: &[u8], replies: &mut [u8]) {
        self.0.write_all(frames).unwrap();
        self.0.read_exact(replies).unwrap();
    }
}

fn frame(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(REQUEST + body.len()).unwrap();
    let head = [length, opcode].map(u32::to_ne_bytes).concat();
    [&head[..], &7_u64.to_ne_bytes(), &node.to_ne_bytes(), &[0; 16], body].concat()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn requests(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), vec![7; 1 << 20]).unwrap();
    let mut client = Client::new(Passthrough::new(directory.path(), Options::default()).unwrap());
    let node = number(&client.ask(&frame(LOOKUP, ROOT, b"file\0")), 0);
    let flags = libc::O_RDWR.cast_unsigned();
    let handle = number(&client.ask(&frame(OPEN, node, &[flags, 0].map(u32::to_ne_bytes).concat())), 0);
    // `fuse_read_in` and `fuse_write_in` begin alike.
    let data = |size: u32, data: &[u8]| {
        [&handle.to_ne_bytes()[..], &[0; 8], &size.to_ne_bytes(), &[0; 20], data].concat()
    };

    let mut group = criterion.benchmark_group("requests");
    for (name, batch, request) in [
        ("unknown", BATCH, frame(UNKNOWN, ROOT, b"")),
        ("getattr", BATCH, frame(GETATTR, node, &[0; 16])),
        ("lookup", BATCH, frame(LOOKUP, ROOT, b"file\0")),
        ("lookup miss", BATCH, frame(LOOKUP, ROOT, b"none\0")),
        ("read 4 KiB", BATCH, frame(READ, node, &data(4096, &[]))),
        ("write 4 KiB", BATCH, frame(WRITE, node, &data(4096, &[1; 4096]))),
        ("read 1 MiB", 1, frame(READ, node, &data(1 << 20, &[]))),
        ("write 1 MiB", 1, frame(WRITE, node, &data(1 << 20, &vec![1; 1 << 20]))),
    ] {
        let reply = REPLY + client.ask(&request).len();
        let (frames, mut replies) = (request.repeat(batch), vec![0; reply * batch]);
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(name, |bencher| bencher.iter(|| client.exchange(&frames, &mut replies)));
    }
    group.finish();
}

criterion_group!(benches, greeting, requests);
criterion_main!(benches);
