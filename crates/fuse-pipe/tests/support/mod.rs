//! A server in raw frames, as small as can be: one directory, one file.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    thread,
};

use fcvm_testkit::skip;
use fuse_pipe::{
    hello::{Hello, Welcome},
    stream::Stream,
};

pub(crate) mod sys;

pub(crate) const CONTENT: &[u8] = b"how do you do\n";

pub(crate) const LOOKUP: u32 = 1;
pub(crate) const READ: u32 = 15;
pub(crate) const INIT: u32 = 26;
const FORGETS: [u32; 3] = [2, 42, 36];
const ROOT: u64 = 1;
const FILE: u64 = 2;

/// `None` and a printed reason where this user can mount nothing.
pub(crate) fn directory() -> Option<tempfile::TempDir> {
    if !Path::new("/dev/fuse").exists() {
        skip("no `/dev/fuse`");
        return None;
    }
    if !rustix::process::geteuid().is_root() && Command::new("fusermount3").arg("-V").output().is_err() {
        skip("needs root or `fusermount3`");
        return None;
    }
    Some(tempfile::tempdir().unwrap())
}

/// The same, for what only root can do.
pub(crate) fn directory_of_root() -> Option<tempfile::TempDir> {
    if !rustix::process::geteuid().is_root() {
        skip("needs root");
        return None;
    }
    directory()
}

pub(crate) fn is_mounted(path: &Path) -> bool {
    fs::read_to_string("/proc/self/mountinfo").unwrap().contains(path.to_str().unwrap())
}

/// Waits for what another process is about to do.
pub(crate) fn wait_for<T>(mut reached: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = reached() {
            return found;
        }
        thread::yield_now();
    }
}

pub(crate) struct Request {
    pub(crate) opcode: u32,
    pub(crate) unique: u64,
    node: u64,
    body: Vec<u8>,
}

#[derive(Clone)]
pub(crate) enum Answer {
    Body(Vec<u8>),
    Error(i32),
    Silence,
    /// These bytes instead of a frame.
    Raw(Vec<u8>),
    /// These bytes before what would be answered else.
    Before(Vec<u8>),
    HangUp,
}

/// A server in a thread of its own, on one lane; `special` may answer otherwise.
pub(crate) fn serve(special: impl FnMut(&Request) -> Option<Answer> + Send + 'static) -> Stream {
    let (near, far) = UnixStream::pair().unwrap();
    thread::spawn(move || answer_all(far, special));
    Stream::new(near).unwrap()
}

/// The file, and nothing special.
pub(crate) fn plain() -> Stream {
    serve(|_| None)
}

fn answer_all(mut stream: UnixStream, mut special: impl FnMut(&Request) -> Option<Answer>) {
    Hello::receive(&mut stream).unwrap();
    Welcome::accepted(1 << 20).send(&mut stream).unwrap();
    while let Some(request) = read(&mut stream) {
        let answer = match special(&request) {
            Some(Answer::Before(bytes)) => {
                stream.write_all(&bytes).unwrap();
                usual(&request)
            }
            Some(answer) => answer,
            None => usual(&request),
        };
        let bytes = match answer {
            Answer::Body(body) => frame(request.unique, 0, &body),
            Answer::Error(errno) => frame(request.unique, -errno, &[]),
            Answer::Raw(bytes) => bytes,
            Answer::Silence | Answer::Before(_) => continue,
            Answer::HangUp => return,
        };
        if let Err(error) = stream.write_all(&bytes) {
            assert_eq!(error.kind(), ErrorKind::BrokenPipe);
            return;
        }
    }
}

fn read(stream: &mut UnixStream) -> Option<Request> {
    let mut header = [0; 40];
    stream.read_exact(&mut header).ok()?;
    let length = u32::from_ne_bytes(header[..4].try_into().unwrap()) as usize;
    let mut body = vec![0; length - 40];
    stream.read_exact(&mut body).ok()?;
    Some(Request {
        opcode: u32::from_ne_bytes(header[4..8].try_into().unwrap()),
        unique: u64::from_ne_bytes(header[8..16].try_into().unwrap()),
        node: u64::from_ne_bytes(header[16..24].try_into().unwrap()),
        body,
    })
}

/// A reply, or by a `unique` of 0 the notification of that code.
pub(crate) fn frame(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(16 + body.len()).unwrap();
    [&length.to_ne_bytes()[..], &error.to_ne_bytes(), &unique.to_ne_bytes(), body].concat()
}

fn usual(request: &Request) -> Answer {
    let body = &request.body;
    let at = |offset: usize| u64::from_ne_bytes(body[offset..offset + 8].try_into().unwrap());
    Answer::Body(match request.opcode {
        INIT => init(),
        LOOKUP if body == b"hello\0" => entry(),
        LOOKUP => return Answer::Error(libc::ENOENT),
        // The attributes are valid for no time, so that each look asks.
        3 => [&[0; 16][..], &attributes(request.node)].concat(),
        14 | 27 => vec![0; 16],
        READ => {
            let start = usize::try_from(at(8)).unwrap().min(CONTENT.len());
            CONTENT[start..].to_vec()
        }
        28 if at(8) == 0 => listing(),
        18 | 25 | 28 | 29 => Vec::new(),
        opcode if FORGETS.contains(&opcode) => return Answer::Silence,
        _ => return Answer::Error(libc::ENOSYS),
    })
}

/// Protocol 7.31, and no more than 64 KiB to write at once.
fn init() -> Vec<u8> {
    let mut body = [7_u32, 31, 65536, 0, 0, 65536].map(u32::to_ne_bytes).concat();
    body.resize(64, 0);
    body
}

fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == ROOT { (0o40755, 0) } else { (0o100_644, CONTENT.len() as u64) };
    let mut bytes = [node, size, 1, 0, 0, 0].map(u64::to_ne_bytes).concat();
    bytes.extend([0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat());
    bytes
}

fn entry() -> Vec<u8> {
    let mut bytes = FILE.to_ne_bytes().to_vec();
    bytes.resize(40, 0);
    bytes.extend(attributes(FILE));
    bytes
}

fn listing() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (offset, (node, kind, name)) in (1_u64..).zip([(ROOT, 4_u32, "."), (FILE, 8, "hello")]) {
        bytes.extend([node, offset].map(u64::to_ne_bytes).concat());
        bytes.extend([u32::try_from(name.len()).unwrap(), kind].map(u32::to_ne_bytes).concat());
        bytes.extend(name.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    bytes
}
