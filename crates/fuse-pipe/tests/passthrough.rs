//! A directory of this host through the kernel, a client, a socket pair and a server.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    env,
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{
        fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use fuse_pipe::{
    client::{Client, Mounted, Options},
    passthrough::{self, Access, Cache, Passthrough},
    server::Server,
    stream::Stream,
};
use rustix::fs::{
    AtFlags, CWD, FallocateFlags, Mode, OFlags, RawDir, RenameFlags, StatxFlags, XattrFlags, fallocate,
    getxattr, linkat, listxattr, open, removexattr, renameat_with, seek, setxattr, statx, utimensat,
};

mod support;

mod forked;

use forked::{Forked, confined};
use support::directory;

/// Has all tests here use a server in a process that is confined.
const CONFINED: &str = "FUSE_PIPE_TEST_CONFINED";

/// A directory, and the same through the pipe.
struct Pipe {
    host: tempfile::TempDir,
    guest: tempfile::TempDir,
    mounted: Mounted,
    confined: Option<Forked>,
}

impl Pipe {
    /// Nothing, with a word why, where nothing can be mounted.
    fn new(cache: Cache, access: Access, lanes: usize) -> Option<Self> {
        let guest = directory()?;
        let host = tempfile::tempdir().unwrap();
        let options = passthrough::Options { cache, access, ..passthrough::Options::default() };
        if env::var_os(CONFINED).is_some() {
            let options = passthrough::Options { watch: passthrough::Watch::On, ..options };
            let (confined, streams) = confined::serve(host.path(), options, lanes)?;
            let mounted = Client::mount(guest.path(), streams, &Options::default()).unwrap();
            return Some(Self { host, guest, mounted, confined: Some(confined) });
        }
        let server = Server::new(Passthrough::new(host.path(), options).unwrap());
        let streams = (0..lanes).map(|_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let server = server.clone();
            thread::spawn(move || server.serve(Stream::new(theirs).unwrap()).unwrap());
            Stream::new(ours).unwrap()
        });
        let mounted = Client::mount(guest.path(), streams.collect(), &Options::default()).unwrap();
        Some(Self { host, guest, mounted, confined: None })
    }

    fn guest(&self, name: &str) -> PathBuf {
        self.guest.path().join(name)
    }

    fn host(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    fn end(self) {
        self.mounted.unmount().unwrap();
        if let Some(confined) = self.confined {
            confined.end();
        }
    }
}

const CACHES: [Cache; 4] = [Cache::Auto, Cache::Always, Cache::Never, Cache::Exclusive];

#[test]
fn files_are_written_and_read_in_every_cache_mode() {
    for cache in CACHES {
        let Some(pipe) = Pipe::new(cache, Access::ReadWrite, 2) else { return };
        let data: Vec<u8> = (0..5_000_000_u32).map(|number| (number >> 3).to_le_bytes()[0]).collect();
        fs::write(pipe.guest("file"), &data).unwrap();
        assert!(fs::read(pipe.guest("file")).unwrap() == data);
        File::open(pipe.guest("file")).unwrap().sync_all().unwrap();
        assert!(fs::read(pipe.host("file")).unwrap() == data, "{cache:?}");
        let file = OpenOptions::new().append(true).read(true).open(pipe.guest("file")).unwrap();
        (&file).write_all(b"more").unwrap();
        file.write_all_at(b"x", 10).unwrap();
        file.set_len(5_000_003).unwrap();
        file.sync_all().unwrap();
        let host = fs::read(pipe.host("file")).unwrap();
        assert_eq!((host.len(), &host[5_000_000..]), (5_000_003, b"mor".as_slice()), "{cache:?}");
        assert_eq!(fs::metadata(pipe.guest("file")).unwrap().len(), 5_000_003);
        fs::remove_file(pipe.guest("file")).unwrap();
        // It is there for whoever has it open.
        let mut rest = String::new();
        (&file).seek(SeekFrom::Start(5_000_000)).unwrap();
        (&file).read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "mor");
        assert!(!pipe.host("file").exists());
        drop(file);
        pipe.end();
    }
}

#[test]
fn names_are_made_moved_and_removed() {
    let Some(pipe) = Pipe::new(Cache::Auto, Access::ReadWrite, 1) else { return };
    fs::create_dir(pipe.guest("directory")).unwrap();
    fs::write(pipe.guest("directory/a"), "a").unwrap();
    symlink("a", pipe.guest("directory/link")).unwrap();
    assert_eq!(fs::read_link(pipe.host("directory/link")).unwrap(), Path::new("a"));
    assert_eq!(fs::read(pipe.guest("directory/link")).unwrap(), b"a");
    fs::hard_link(pipe.guest("directory/a"), pipe.guest("b")).unwrap();
    assert_eq!(fs::metadata(pipe.guest("b")).unwrap().nlink(), 2);
    assert_eq!(
        fs::metadata(pipe.guest("b")).unwrap().ino(),
        fs::metadata(pipe.host("directory/a")).unwrap().ino()
    );
    fs::rename(pipe.guest("b"), pipe.guest("directory/c")).unwrap();
    assert_eq!(fs::metadata(pipe.guest("b")).unwrap_err().kind(), ErrorKind::NotFound);
    let no_replace =
        renameat_with(CWD, pipe.guest("directory/c"), CWD, pipe.guest("directory/a"), RenameFlags::NOREPLACE);
    assert_eq!(no_replace.unwrap_err(), rustix::io::Errno::EXIST);
    fs::write(pipe.guest("directory/d"), "d").unwrap();
    renameat_with(CWD, pipe.guest("directory/c"), CWD, pipe.guest("directory/d"), RenameFlags::EXCHANGE)
        .unwrap();
    assert_eq!(fs::read(pipe.guest("directory/c")).unwrap(), b"d");
    assert_eq!(fs::remove_dir(pipe.guest("directory")).unwrap_err().kind(), ErrorKind::DirectoryNotEmpty);
    fs::remove_dir_all(pipe.guest("directory")).unwrap();
    assert_eq!(fs::read_dir(pipe.host.path()).unwrap().count(), 0);
    pipe.end();
}

#[test]
fn large_directories_are_listed_whole_with_both_dots() {
    let Some(pipe) = Pipe::new(Cache::Auto, Access::ReadWrite, 2) else { return };
    for number in 0..3000 {
        fs::write(pipe.host(&format!("a file with the number {number}")), "").unwrap();
    }
    let root = open(pipe.guest.path(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&root, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        names.push(entry.unwrap().file_name().to_str().unwrap().to_owned());
    }
    names.sort();
    names.dedup();
    assert_eq!((names.len(), names[0].as_str(), names[1].as_str()), (3002, ".", ".."));
    // With what each is, and again.
    for _ in 0..2 {
        let files = fs::read_dir(pipe.guest.path()).unwrap();
        assert_eq!(files.filter(|entry| entry.as_ref().unwrap().metadata().unwrap().is_file()).count(), 3000);
    }
    pipe.end();
}

#[test]
fn attributes_are_the_hosts() {
    let Some(pipe) = Pipe::new(Cache::Auto, Access::ReadWrite, 1) else { return };
    let path = pipe.guest("file");
    fs::write(&path, "x").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4750)).unwrap();
    assert_eq!(fs::metadata(pipe.host("file")).unwrap().mode() & 0o7777, 0o4750);
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: -5, tv_nsec: 7 },
        last_modification: rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 9 },
    };
    utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
    let host = fs::metadata(pipe.host("file")).unwrap();
    assert_eq!((host.atime(), host.atime_nsec(), host.mtime(), host.mtime_nsec()), (-5, 7, 1_000_000, 9));
    let guest = fs::metadata(&path).unwrap();
    assert_eq!((guest.atime(), guest.mtime_nsec(), guest.ino()), (-5, 9, host.ino()));
    let born = |path| statx(CWD, path, AtFlags::empty(), StatxFlags::BTIME).unwrap().stx_btime.tv_sec;
    assert_eq!(born(path.clone()), born(pipe.host("file")));
    setxattr(&path, "user.name", b"value", XattrFlags::empty()).unwrap();
    let mut value = [0; 16];
    assert_eq!(getxattr(pipe.host("file"), "user.name", &mut value).unwrap(), 5);
    let mut names = [0; 64];
    let length = listxattr(&path, &mut names).unwrap();
    assert_eq!(&names[..length], b"user.name\0");
    assert_eq!(getxattr(&path, "user.name", &mut value[..2]).unwrap_err(), rustix::io::Errno::RANGE);
    removexattr(&path, "user.name").unwrap();
    assert_eq!(getxattr(&path, "user.name", &mut value).unwrap_err(), rustix::io::Errno::NODATA);
    pipe.end();
}

#[test]
fn holes_and_files_without_names() {
    let Some(pipe) = Pipe::new(Cache::Auto, Access::ReadWrite, 1) else { return };
    let file = File::create(pipe.guest("sparse")).unwrap();
    file.set_len(5 << 30).unwrap();
    file.write_all_at(b"data", 4 << 30).unwrap();
    assert_eq!(seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap(), 4 << 30);
    assert_eq!(seek(&file, rustix::fs::SeekFrom::Hole(4 << 30)).unwrap(), (4 << 30) + 4096);
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 4 << 30, 4096).unwrap();
    assert_eq!(seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap_err(), rustix::io::Errno::NXIO);
    let mut copy =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(pipe.guest("copy")).unwrap();
    file.write_all_at(b"copied", 0).unwrap();
    let mut from = File::open(pipe.guest("sparse")).unwrap();
    assert_eq!(std::io::copy(&mut (&mut from).take(6), &mut copy).unwrap(), 6);
    assert_eq!(fs::read(pipe.host("copy")).unwrap(), b"copied");

    let flags = OFlags::TMPFILE | OFlags::RDWR;
    let nameless: File = open(pipe.guest.path(), flags, Mode::from_raw_mode(0o644)).unwrap().into();
    nameless.write_all_at(b"found", 0).unwrap();
    use std::os::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", nameless.as_raw_fd());
    linkat(CWD, path, CWD, pipe.guest("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    assert_eq!(fs::read(pipe.host("named")).unwrap(), b"found");
    pipe.end();
}

#[test]
fn changes_of_the_host_are_seen() {
    let Some(pipe) = Pipe::new(Cache::Never, Access::ReadWrite, 1) else { return };
    fs::write(pipe.host("file"), "old").unwrap();
    assert_eq!(fs::read_to_string(pipe.guest("file")).unwrap(), "old");
    fs::write(pipe.host("file"), "newer").unwrap();
    assert_eq!(fs::read_to_string(pipe.guest("file")).unwrap(), "newer");
    fs::remove_file(pipe.host("file")).unwrap();
    assert_eq!(fs::read(pipe.guest("file")).unwrap_err().kind(), ErrorKind::NotFound);
    pipe.end();
}

#[test]
fn what_is_read_only_stays_as_it_is() {
    let Some(pipe) = Pipe::new(Cache::Auto, Access::ReadOnly, 1) else { return };
    fs::write(pipe.host("file"), "x").unwrap();
    assert_eq!(fs::read(pipe.guest("file")).unwrap(), b"x");
    for refused in [
        fs::write(pipe.guest("new"), ""),
        fs::remove_file(pipe.guest("file")),
        fs::create_dir(pipe.guest("directory")),
        fs::set_permissions(pipe.guest("file"), fs::Permissions::from_mode(0o600)),
        OpenOptions::new().write(true).open(pipe.guest("file")).map(drop),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    }
    pipe.end();
}

#[test]
fn everything_works_of_a_server_that_is_confined() {
    if support::directory().is_none() || env::var_os(CONFINED).is_some() {
        return;
    }
    let mut again = Command::new(env::current_exe().unwrap());
    let output = again.arg("--nocapture").env(CONFINED, "1").output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}
