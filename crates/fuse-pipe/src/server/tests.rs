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
    passthrough::{Access, Options},
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
        let files = Passthrough::new(directory.path(), Options { access, ..Options::default() }).unwrap();
        let (stream, theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || Server::new(files).serve(Stream::new(theirs).unwrap()));
        let mut served = Self { directory, stream, server };
        served.greet();
        served
    }

    fn greet(&mut self) {
        let served = self;
        let hello = Hello { lane: 0, lanes: 1, mount: MountId([7; 16]) };
        hello.send(&mut served.stream).unwrap();
        assert!(Welcome::receive(&mut served.stream).unwrap().taken().unwrap() > 1 << 20);
        let init = InitIn { major: 7, minor: 38, flags: u32::MAX, ..InitIn::default() };
        served.ask(26, 0, init.as_bytes()).unwrap();
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

#[test]
fn what_is_done_is_counted_and_a_client_that_goes_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "content").unwrap();
    let server = Server::new(Passthrough::new(directory.path(), Options::default()).unwrap());
    let (stream, theirs) = UnixStream::pair().unwrap();
    let serving = server.clone();
    let thread = std::thread::spawn(move || serving.serve(Stream::new(theirs).unwrap()));
    let mut served = Served { directory, stream, server: thread };
    served.greet();
    let node = EntryOut::read_from_bytes(&served.ask(1, 1, b"file\0").unwrap()).unwrap().nodeid;
    let flags = libc::O_RDWR.cast_unsigned();
    let fh = OpenOut::read_from_bytes(&served.ask(14, node, [flags, 0].as_bytes()).unwrap()).unwrap().fh;
    let read = ReadIn { fh, size: 100, ..ReadIn::default() };
    served.ask(15, node, read.as_bytes()).unwrap();
    let write = WriteIn { fh, size: 2, ..WriteIn::default() };
    served.ask(16, node, &[write.as_bytes(), b"CO"].concat()).unwrap();
    served.ask(1, 1, b"none\0").unwrap_err();
    served.ask(4096, 1, b"").unwrap_err();
    let statistics = server.statistics();
    assert_eq!(statistics.requests, [(0, 1), (1, 2), (14, 1), (15, 1), (16, 1), (26, 1)]);
    assert_eq!((statistics.read, statistics.written, statistics.errors), (7, 2, 2));
    assert_eq!((statistics.nodes, statistics.handles), (2, 1));
    served.end().unwrap();
    let statistics = server.statistics();
    assert_eq!((statistics.nodes, statistics.handles), (1, 0));
}

/// In a process of its own, which may have few files open.
#[test]
fn without_descriptors_requests_fail_and_nothing_else_does() {
    if std::env::var_os("FEW_FILES").is_none() {
        let name = "server::tests::without_descriptors_requests_fail_and_nothing_else_does";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env("FEW_FILES", "1")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let mut served = Served::new(Access::ReadWrite);
    for number in 0..100 {
        fs::write(served.directory.path().join(number.to_string()), "x").unwrap();
    }
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(60), maximum: limit.maximum }).unwrap();
    let mut nodes = Vec::new();
    let errno = loop {
        let name = format!("{}\0", nodes.len());
        match served.ask(1, 1, name.as_bytes()) {
            Ok(entry) => nodes.push(EntryOut::read_from_bytes(&entry).unwrap().nodeid),
            Err(errno) => break errno,
        }
    };
    assert_eq!(errno, libc::EMFILE);
    assert!(nodes.len() > 20);
    // What is open goes on, and all others say why not.
    assert!(served.ask(3, nodes[0], &[0; 16]).is_ok());
    assert_eq!(served.ask(14, nodes[0], &[0; 8]).unwrap_err(), libc::EMFILE);
    assert_eq!(served.ask(27, 1, &[0; 8]).unwrap_err(), libc::EMFILE);
    let create = CreateIn { flags: libc::O_CREAT.cast_unsigned(), mode: 0o100_666, ..CreateIn::default() };
    assert_eq!(served.ask(35, 1, &[create.as_bytes(), b"new\0"].concat()).unwrap_err(), libc::EMFILE);
    // Once there is room again, it works again.
    assert_eq!(raise_file_limit().unwrap(), limit.maximum);
    assert!(served.ask(14, nodes[0], &[0; 8]).is_ok());
    served.end().unwrap();
}

#[test]
fn of_ioctl_there_are_flags_only_and_only_harmless_ones_change() {
    use crate::abi::{FsXattr, IoctlIn, IoctlOut};

    let mut served = Served::new(Access::ReadWrite);
    fs::write(served.directory.path().join("file"), "x").unwrap();
    let node = EntryOut::read_from_bytes(&served.ask(1, 1, b"file\0").unwrap()).unwrap().nodeid;
    let fh = OpenOut::read_from_bytes(&served.ask(14, node, &[0; 8]).unwrap()).unwrap().fh;
    let mut ioctl = |cmd, data: &[u8], out_size| {
        let in_size = u32::try_from(data.len()).unwrap();
        let of = IoctlIn { fh, cmd, in_size, out_size, ..IoctlIn::default() };
        let answer = served.ask(39, node, &[of.as_bytes(), data].concat());
        answer.map(|answer| answer[size_of::<IoctlOut>()..].to_vec())
    };
    // FICLONE, and one that nobody has.
    assert_eq!(ioctl(0x4004_9409, &[0; 4], 0).unwrap_err(), libc::ENOTTY);
    assert_eq!(ioctl(0, &[], 0).unwrap_err(), libc::ENOTTY);
    let before = match ioctl(0x8008_6601, &[], 4) {
        // Not every file system has flags.
        Err(errno) => return assert!([libc::ENOTTY, libc::EOPNOTSUPP].contains(&errno)),
        Ok(flags) => u32::from_ne_bytes(flags.try_into().unwrap()),
    };
    let no_dump = before | 0x40;
    ioctl(0x4008_6602, &no_dump.to_ne_bytes(), 0).unwrap();
    assert_eq!(ioctl(0x8008_6601, &[], 4).unwrap(), no_dump.to_ne_bytes());
    for kept in [0x10_u32, 0x20] {
        // Immutable, append only.
        assert_eq!(ioctl(0x4008_6602, &(before | kept).to_ne_bytes(), 0).unwrap_err(), libc::EPERM);
    }
    assert_eq!(ioctl(0x4008_6602, &[0; 3], 0).unwrap_err(), libc::EINVAL);
    let Ok(found) = ioctl(0x801c_581f, &[], 28) else { return };
    let found = FsXattr::read_from_bytes(&found).unwrap();
    ioctl(0x401c_5820, FsXattr { xflags: found.xflags & !0x80, ..found }.as_bytes(), 0).unwrap();
    assert_eq!(ioctl(0x401c_5820, FsXattr { projid: 7, ..found }.as_bytes(), 0).unwrap_err(), libc::EPERM);
    assert_eq!(ioctl(0x8008_6601, &[], 4).unwrap(), before.to_ne_bytes());
    served.end().unwrap();
}

/// Two names are exchanged on the host all the time: what is served, and a link to what is not.
#[test]
fn a_link_that_comes_between_is_not_followed() {
    use std::{
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering::Relaxed},
    };

    use rustix::fs::{CWD, RenameFlags, renameat_with};

    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "outside").unwrap();
    let mut served = Served::new(Access::ReadWrite);
    let inside = served.directory.path().to_owned();
    fs::create_dir(inside.join("directory")).unwrap();
    fs::write(inside.join("directory/file"), "inside").unwrap();
    fs::write(inside.join("file"), "inside").unwrap();
    symlink(outside.path(), inside.join("directory link")).unwrap();
    symlink(outside.path().join("file"), inside.join("file link")).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                for name in ["directory", "file"] {
                    let link = inside.join(format!("{name} link"));
                    renameat_with(CWD, inside.join(name), CWD, link, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let mut opened = 0;
        for round in 0..3000 {
            let parent =
                EntryOut::read_from_bytes(&served.ask(1, 1, b"directory\0").unwrap()).unwrap().nodeid;
            let file =
                if round % 2 == 0 { served.ask(1, parent, b"file\0") } else { served.ask(1, 1, b"file\0") };
            let made = CreateIn {
                flags: (libc::O_WRONLY | libc::O_CREAT).cast_unsigned(),
                mode: 0o600,
                ..CreateIn::default()
            };
            for (parent, name) in [(parent, b"file\0".as_slice()), (1, b"file\0")] {
                if let Ok(made) = served.ask(35, parent, &[made.as_bytes(), name].concat()) {
                    let fh = OpenOut::read_from_bytes(&made[size_of::<EntryOut>()..]).unwrap().fh;
                    let write = WriteIn { fh, size: 6, ..WriteIn::default() };
                    served.ask(16, parent, &[write.as_bytes(), b"inside"].concat()).unwrap();
                    served.ask(18, parent, &[fh.as_bytes(), &[0; 16]].concat()).unwrap();
                }
            }
            let Ok(file) = file else { continue };
            let file = EntryOut::read_from_bytes(&file).unwrap().nodeid;
            let Ok(open) = served.ask(14, file, &[0; 8]) else { continue };
            let fh = OpenOut::read_from_bytes(&open).unwrap().fh;
            let read = ReadIn { fh, size: 100, ..ReadIn::default() };
            assert_eq!(served.ask(15, file, read.as_bytes()).unwrap(), b"inside");
            served.ask(18, file, &[fh.as_bytes(), &[0; 16]].concat()).unwrap();
            opened += 1;
        }
        done.store(true, Relaxed);
        assert!(opened > 0);
    });
    assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    served.end().unwrap();
}

/// To open a pipe or a device would wait, or do something.
#[test]
fn pipes_sockets_and_devices_are_never_opened() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    let mut served = Served::new(Access::ReadWrite);
    let path = served.directory.path().to_owned();
    let _socket = std::os::unix::net::UnixListener::bind(path.join("socket")).unwrap();
    let make =
        |name: &str, kind, device| mknodat(CWD, path.join(name), kind, Mode::RUSR | Mode::WUSR, device);
    make("pipe", FileType::Fifo, 0).unwrap();
    let mut names = vec!["socket", "pipe"];
    if rustix::process::geteuid().is_root() {
        make("null", FileType::CharacterDevice, makedev(1, 3)).unwrap();
        names.push("null");
    }
    for name in names {
        let entry = served.ask(1, 1, &[name.as_bytes(), b"\0"].concat()).unwrap();
        let node = EntryOut::read_from_bytes(&entry).unwrap().nodeid;
        for flags in [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR] {
            let open = [flags.cast_unsigned(), 0];
            assert_eq!(served.ask(14, node, open.as_bytes()).unwrap_err(), libc::ENXIO, "{name}");
        }
        let made = CreateIn {
            flags: (libc::O_RDWR | libc::O_CREAT).cast_unsigned(),
            mode: 0o600,
            ..CreateIn::default()
        };
        let create = [made.as_bytes(), name.as_bytes(), b"\0"].concat();
        assert_eq!(served.ask(35, 1, &create).unwrap_err(), libc::ENXIO, "{name}");
    }
    served.end().unwrap();
}
