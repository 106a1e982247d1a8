//! A client that keeps to nothing, of any bytes: what the fuzzer runs, and a test with its own bytes.
//!
//! The bytes choose, frame by frame, the operation, the file, the body and the lies: lengths, extensions,
//! names with a `/`, numbers and handles that nobody has. What the server told before is used too, or nothing
//! would be found behind a lookup. Some frames are sent without reading what is answered, and some on another
//! lane at the same time. Whatever comes: the server does not panic, answers or hangs up, and touches nothing
//! outside its directory.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    thread,
    time::Duration,
};

use fuse_pipe::{
    hello::{Hello, MountId, Welcome},
    passthrough::{Options, Passthrough},
    server::{ServeError, Server},
    stream::Stream,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

const HEADER: usize = 40;
const REPLY: usize = 16;
const CANARY: &str = "nobody may change this";
/// More frames than this say nothing new.
const FRAMES: usize = 200;
/// A server that does not answer for so long hangs.
const PATIENCE: Duration = Duration::from_secs(20);

const FORGET: u32 = 2;
const SETLKW: u32 = 33;
const CREATE: u32 = 35;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
/// Those that may be answered late or not at all.
const UNANSWERED: [u32; 4] = [FORGET, BATCH_FORGET, INTERRUPT, SETLKW];
/// Those whose answer begins with a node's number, and with a handle's.
const ENTRIES: [u32; 8] = [1, 6, 8, 9, 13, 35, 51, 11];
const HANDLES: [u32; 2] = [14, 27];
/// An entry's length, in front of CREATE's handle.
const ENTRY: usize = 128;

/// Names: some that are there, and those that would lead elsewhere.
const NAMES: [&[u8]; 12] = [
    b"file",
    b"directory",
    b"link",
    b"out",
    b"new",
    b"a",
    b"..",
    b".",
    b"",
    b"../canary",
    b"/etc/passwd",
    b"a/b",
];

/// The places that a client acts on: small, so that nothing it does fills this machine.
#[derive(Debug)]
pub(crate) struct World(TempDir);

impl World {
    /// Needs root: a file system of its own bounds what a client may fill.
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let size = c"size=64m,nr_inodes=4096,mode=755";
        mount("tmpfs", place.path(), "tmpfs", MountFlags::empty(), size).unwrap();
        fs::write(place.path().join("canary"), CANARY).unwrap();
        Self(place)
    }

    /// Lets a client do what the bytes say, and looks at what came of it.
    pub(crate) fn run(&self, bytes: &[u8]) {
        let served = self.0.path().join("served");
        furnish(&served);
        let server = Server::new(Passthrough::new(&served, Options::default()).unwrap());
        let mut choice = Choice(bytes);
        let lanes: Vec<_> = (0..2).map(|lane| Lane::new(&server, lane)).collect();
        let mut client = Client { lanes, nodes: vec![1], handles: vec![1], unique: 0 };
        for _ in 0..FRAMES {
            if choice.0.is_empty() || !client.act(&mut choice) {
                break;
            }
        }
        client.end();
        self.look();
        fs::remove_dir_all(&served).unwrap();
    }

    fn look(&self) {
        let mut names: Vec<_> =
            fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["canary", "served"]);
        assert_eq!(fs::read_to_string(self.0.path().join("canary")).unwrap(), CANARY);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

fn furnish(served: &Path) {
    fs::create_dir_all(served.join("directory/below")).unwrap();
    fs::write(served.join("file"), vec![7; 10_000]).unwrap();
    symlink("../canary", served.join("link")).unwrap();
    symlink("..", served.join("out")).unwrap();
}

/// Bytes that choose; at their end zeros.
struct Choice<'a>(&'a [u8]);

impl<'a> Choice<'a> {
    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    fn number(&mut self) -> u64 {
        // Small ones, those around limits, and any.
        match self.byte() {
            small @ 0..=200 => small.into(),
            201..=210 => u64::MAX,
            211..=220 => i64::MAX.cast_unsigned(),
            221..=230 => u32::MAX.into(),
            231..=240 => 4096,
            _ => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
        }
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    fn one_in(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }
}

/// A connection, and the thread that serves it.
struct Lane {
    stream: UnixStream,
    server: thread::JoinHandle<Result<(), ServeError>>,
}

impl Lane {
    fn new(server: &Server, lane: u16) -> Self {
        let (mut stream, theirs) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let server = server.clone();
        let server = thread::spawn(move || server.serve(Stream::new(theirs).unwrap()));
        Hello { lane, lanes: 2, mount: MountId([7; 16]) }.send(&mut stream).unwrap();
        Welcome::receive(&mut stream).unwrap().taken().unwrap();
        Self { stream, server }
    }
}

struct Client {
    lanes: Vec<Lane>,
    nodes: Vec<u64>,
    handles: Vec<u64>,
    unique: u64,
}

impl Client {
    /// One or several frames; `false` when there is nothing more to try.
    fn act(&mut self, choice: &mut Choice<'_>) -> bool {
        let opcode = match choice.byte() {
            known @ 0..=220 => u32::from(known % 54),
            _ => u32::try_from(choice.number() & 0xffff).unwrap(),
        };
        let mut body = self.body(opcode, choice);
        let mut extensions = 0_u16;
        if choice.one_in(8) {
            // A group for new files, or what looks like one.
            body.resize(body.len().next_multiple_of(8), 0);
            let kind = if choice.one_in(2) { 32 } else { 0 };
            let counted = u32::try_from(choice.number() & 0xffff_ffff).unwrap();
            body.extend([16, kind, counted, 1000_u32].map(u32::to_ne_bytes).concat());
            extensions = if choice.one_in(4) { choice.byte().into() } else { 2 };
        }
        let (node, lane) = (self.node(choice), usize::from(choice.one_in(4)));
        let ids = [choice.of(&[0_u32, 0, 1000, 65534, u32::MAX]), choice.of(&[0_u32, 0, 1000, u32::MAX])];
        let mut length = HEADER + body.len();
        let lies = choice.one_in(50);
        if lies {
            length = usize::try_from(choice.number() & 0xffff_ffff).unwrap();
        }
        self.unique += 1;
        let frame = [
            &u32::try_from(length).unwrap().to_ne_bytes()[..],
            &opcode.to_ne_bytes(),
            &self.unique.to_ne_bytes(),
            &node.to_ne_bytes(),
            &ids.map(u32::to_ne_bytes).concat(),
            &7_u32.to_ne_bytes(),
            &extensions.to_ne_bytes(),
            &[0, 0],
            &body,
        ]
        .concat();
        let flood = choice.one_in(40);
        let times = if flood { 1 + usize::from(choice.byte()) } else { 1 };
        let mut stream = &self.lanes[lane].stream;
        if stream.write_all(&frame.repeat(times)).is_err() || lies || flood {
            return false;
        }
        UNANSWERED.contains(&opcode) || self.listen(opcode, lane)
    }

    fn node(&mut self, choice: &mut Choice<'_>) -> u64 {
        if choice.one_in(12) { choice.number() } else { choice.of(&self.nodes) }
    }

    /// As long as that operation's body is, or not.
    fn body(&mut self, opcode: u32, choice: &mut Choice<'_>) -> Vec<u8> {
        let handle = if choice.one_in(12) { choice.number() } else { choice.of(&self.handles) };
        let mut body = Vec::new();
        let mut numbers = |body: &mut Vec<u8>, count: usize| {
            for _ in 0..count {
                body.extend(choice.number().to_ne_bytes());
            }
        };
        // Of 8 bytes each, before names or data; with a handle in front where one belongs there.
        let (with_handle, count, names) = match opcode {
            1 | 10 | 11 | 22 | 24 => (false, 0, 1),
            6 => (false, 0, 2),
            8 => (false, 2, 1),
            9 | 13 => (false, 1, 1),
            12 => (false, 1, 2),
            45 => (false, 2, 2),
            35 | 51 => (false, 2, 1),
            21 => (false, 1, 2),
            15 | 28 | 44 => (true, 4, 0),
            16 => (true, 4, 1),
            4 => (false, 11, 0),
            26 => (false, 8, 0),
            _ => (true, 4, 0),
        };
        if with_handle {
            body.extend(handle.to_ne_bytes());
        }
        numbers(&mut body, count);
        if opcode == 12 || opcode == 45 {
            // Where to: a directory that is known.
            let to = choice.of(&self.nodes);
            body[..8].copy_from_slice(&to.to_ne_bytes());
        }
        for _ in 0..names {
            body.extend(if choice.one_in(8) { choice.bytes(255) } else { choice.of(&NAMES) });
            if !choice.one_in(30) {
                body.push(0);
            }
        }
        if choice.one_in(30) {
            body.extend(choice.bytes(255));
        }
        if choice.one_in(30) {
            body.truncate(usize::from(choice.byte()));
        }
        body
    }

    /// Reads an answer and learns from it; `false` where the server has hung up.
    fn listen(&mut self, opcode: u32, lane: usize) -> bool {
        let mut stream = &self.lanes[lane].stream;
        loop {
            let mut header = [0; REPLY];
            match stream.read_exact(&mut header) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("{opcode} hangs"),
                Err(_) => return false,
            }
            let length = u32::from_ne_bytes(header[..4].try_into().unwrap()) as usize;
            let error = i32::from_ne_bytes(header[4..8].try_into().unwrap());
            assert!((REPLY..=REPLY + (1 << 20) + 4096).contains(&length), "{opcode}: {length}");
            assert!((-4095..=0).contains(&error) && (error == 0 || length == REPLY), "{opcode}: {error}");
            let mut body = vec![0; length - REPLY];
            stream.read_exact(&mut body).unwrap();
            let unique = u64::from_ne_bytes(header[8..].try_into().unwrap());
            if unique != self.unique {
                // A notification, or the late answer of one that was not waited for.
                assert!(unique < self.unique, "an answer to nobody");
                continue;
            }
            let number =
                |at: usize| body.get(at..at + 8).map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap()));
            if error == 0 {
                self.nodes.extend(ENTRIES.contains(&opcode).then(|| number(0)).flatten());
                let at = if opcode == CREATE { Some(ENTRY) } else { HANDLES.contains(&opcode).then_some(0) };
                self.handles.extend(at.and_then(number));
            }
            return true;
        }
    }

    /// Hangs up without having read everything.
    fn end(self) {
        for lane in self.lanes {
            // The server may have been faster.
            lane.stream.shutdown(Shutdown::Both).ok();
            drop(lane.stream);
            let ended = lane.server.join().unwrap();
            if let Err(ServeError::Lane(error)) = ended {
                assert_ne!(error.to_string(), "a worker panicked");
            }
        }
    }
}
