//! The server by raw frames, as any client sends them: what the kernel makes of it is in `tests/`.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    thread::JoinHandle,
};

use tempfile::TempDir;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::*;
use crate::{
    abi::{CreateIn, EntryOut, ForgetIn, InHeader, InitIn, OpenOut, OutHeader, ReadIn, WriteIn},
    hello::MountId,
    passthrough::{Access, Cache},
};

/// A server of a directory, and a stream to it.
struct Served {
    directory: TempDir,
    stream: UnixStream,
    server: JoinHandle<Result<(), ServeError>>,
}

impl Served {
    fn new(access: Access) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let files = Passthrough::new(directory.path(), Cache::Auto, access).unwrap();
        let (stream, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || Server::new(files).serve(Stream::new(theirs).unwrap()));
        let mut served = Self { directory, stream, server };
        let hello = Hello { lane: 0, lanes: 1, mount: MountId([7; 16]) };
        hello.send(&mut served.stream).unwrap();
        assert!(Welcome::receive(&mut served.stream).unwrap().taken().unwrap() > 1 << 20);
        let init = InitIn { major: 7, minor: 38, flags: u32::MAX, ..InitIn::default() };
        served.ask(26, 0, init.as_bytes()).unwrap();
        served
    }

    fn send(&mut self, opcode: u32, nodeid: u64, body: &[u8]) {
        let len = u32::try_from(40 + body.len()).unwrap();
        let header = InHeader { len, opcode, unique: 5, nodeid, ..InHeader::default() };
        self.stream.write_all(&[header.as_bytes(), body].concat()).unwrap();
    }

    /// The body of the answer, or its errno.
    fn ask(&mut self, opcode: u32, nodeid: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        self.send(opcode, nodeid, body);
        let mut header = [0; 16];
        self.stream.read_exact(&mut header).unwrap();
        let header = OutHeader::read_from_bytes(&header).unwrap();
        assert_eq!(header.unique, 5);
        let mut body = vec![0; header.len as usize - 16];
        self.stream.read_exact(&mut body).unwrap();
        if header.error == 0 { Ok(body) } else { Err(-header.error) }
    }

    fn end(self) -> Result<(), ServeError> {
        drop(self.stream);
        self.server.join().unwrap()
    }
}

#[test]
fn a_file_is_made_written_and_read() {
    let mut served = Served::new(Access::ReadWrite);
    assert_eq!(served.ask(1, 1, b"file\0").unwrap_err(), libc::ENOENT);
    let flags = (libc::O_RDWR | libc::O_CREAT).cast_unsigned();
    let create = CreateIn { flags, mode: 0o100_666, umask: 0o027, open_flags: 0 };
    let made = served.ask(35, 1, &[create.as_bytes(), b"file\0"].concat()).unwrap();
    let (entry, rest) = EntryOut::read_from_prefix(&made).unwrap();
    let fh = OpenOut::read_from_bytes(rest).unwrap().fh;
    assert_eq!(entry.attr.mode, 0o100_640, "the mask is the caller's");
    let write = WriteIn { fh, offset: 3, size: 5, ..WriteIn::default() };
    served.ask(16, entry.nodeid, &[write.as_bytes(), b"hello"].concat()).unwrap();
    assert_eq!(fs::read(served.directory.path().join("file")).unwrap(), b"\0\0\0hello");
    let read = ReadIn { fh, offset: 4, size: 100, ..ReadIn::default() };
    assert_eq!(served.ask(15, entry.nodeid, read.as_bytes()).unwrap(), b"ello");
    served.send(2, entry.nodeid, ForgetIn { nlookup: 1 }.as_bytes());
    // Frames are taken in order, and answered in any: once another has been answered, this has been taken.
    while served.ask(3, entry.nodeid, &[0; 16]).is_ok() {}
    assert_eq!(served.ask(3, entry.nodeid, &[0; 16]).unwrap_err(), libc::ESTALE);
    served.end().unwrap();
}

#[test]
fn nothing_leads_out_of_the_directory() {
    let mut served = Served::new(Access::ReadWrite);
    std::os::unix::fs::symlink("/etc", served.directory.path().join("link")).unwrap();
    for name in ["..", ".", "", "../etc", "/etc", "link/passwd"] {
        let asked = served.ask(1, 1, &[name.as_bytes(), b"\0"].concat());
        assert_eq!(asked.unwrap_err(), libc::EINVAL, "{name}");
    }
    let link = served.ask(1, 1, b"link\0").unwrap();
    let link = EntryOut::read_from_bytes(&link).unwrap();
    assert_eq!(link.attr.mode & 0o170_000, 0o120_000, "the link, and not what it leads to");
    assert_eq!(served.ask(5, link.nodeid, b"").unwrap(), b"/etc");
    // Neither opened nor looked into.
    assert_eq!(served.ask(14, link.nodeid, &[0; 8]).unwrap_err(), libc::ELOOP);
    assert_eq!(served.ask(1, link.nodeid, b"passwd\0").unwrap_err(), libc::ENOTDIR);
    served.end().unwrap();
}

#[test]
fn what_may_not_be_changed_is_not_whatever_the_client_says() {
    let mut served = Served::new(Access::ReadOnly);
    fs::write(served.directory.path().join("file"), "x").unwrap();
    let entry = EntryOut::read_from_bytes(&served.ask(1, 1, b"file\0").unwrap()).unwrap();
    let flags = libc::O_RDWR.cast_unsigned();
    let requests: [(u32, u64, Vec<u8>); 6] = [
        (9, 1, [&[0; 8], b"new\0".as_slice()].concat()),
        (10, 1, b"file\0".to_vec()),
        (14, entry.nodeid, [flags, 0].as_bytes().to_vec()),
        (4, entry.nodeid, vec![0; 88]),
        (6, 1, b"name\0to\0".to_vec()),
        (12, 1, [1_u64.as_bytes(), b"file\0new\0".as_slice()].concat()),
    ];
    for (opcode, node, body) in requests {
        assert_eq!(served.ask(opcode, node, &body).unwrap_err(), libc::EROFS, "{opcode}");
    }
    assert!(served.ask(14, entry.nodeid, &[0; 8]).is_ok());
    served.end().unwrap();
}

#[test]
fn a_frame_that_is_none_closes_the_lane() {
    for length in [0_u32, 39, u32::MAX, 2 << 20] {
        let mut served = Served::new(Access::ReadWrite);
        let header = InHeader { len: length, opcode: 3, nodeid: 1, ..InHeader::default() };
        served.stream.write_all(header.as_bytes()).unwrap();
        assert_eq!(served.stream.read(&mut [0; 64]).unwrap(), 0, "{length}");
        assert!(served.end().is_err());
    }
    // What nobody knows is answered, and the lane goes on.
    let mut served = Served::new(Access::ReadWrite);
    assert_eq!(served.ask(4096, 1, b"").unwrap_err(), libc::ENOSYS);
    assert_eq!(served.ask(15, 1, b"short").unwrap_err(), libc::EINVAL);
    assert!(served.ask(3, 1, &[0; 16]).is_ok());
    served.end().unwrap();
}
