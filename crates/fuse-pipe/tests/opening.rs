//! What opening a file costs and gives: what is cached stays, where it may.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::{
        fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
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
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};

mod support;

use support::directory;

struct Pipe {
    guest: tempfile::TempDir,
    mounted: Mounted,
}

impl Pipe {
    fn new(host: &Path, cache: Cache, access: Access) -> Option<Self> {
        let guest = directory()?;
        let server = Server::new(
            Passthrough::new(host, passthrough::Options { cache, access, ..Default::default() }).unwrap(),
        );
        let (ours, theirs) = UnixStream::pair().unwrap();
        thread::spawn(move || server.serve(Stream::new(theirs).unwrap()).unwrap());
        let streams = vec![Stream::new(ours).unwrap()];
        let mounted = Client::mount(guest.path(), streams, &Options::default()).unwrap();
        Some(Self { guest, mounted })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.guest.path().join(name)
    }

    /// How many requests there were, and bytes of answers.
    fn traffic(&self) -> (u64, u64) {
        let lane = self.mounted.statistics()[0];
        (lane.requests, lane.reply_bytes)
    }
}

/// Opening for reading shortens as well, but not a program that runs: else it would be gone beneath it.
#[test]
fn a_program_that_runs_is_not_shortened() {
    for cache in [Cache::Auto, Cache::Always, Cache::Never, Cache::Exclusive] {
        let host = tempfile::tempdir().unwrap();
        let Some(pipe) = Pipe::new(host.path(), cache, Access::ReadWrite) else { return };
        let path = pipe.path("sleep");
        fs::copy("/bin/sleep", &path).unwrap();
        let length = fs::metadata("/bin/sleep").unwrap().len();
        let mut program = Command::new(&path).arg("1000").spawn().unwrap();
        let shorten = |flags: i32| OpenOptions::new().read(true).custom_flags(flags).open(&path);
        assert_eq!(shorten(libc::O_TRUNC).unwrap_err().raw_os_error(), Some(libc::ETXTBSY), "{cache:?}");
        assert_eq!(fs::metadata(host.path().join("sleep")).unwrap().len(), length, "{cache:?}");
        program.kill().unwrap();
        program.wait().unwrap();
        assert_eq!(shorten(libc::O_TRUNC).unwrap().metadata().unwrap().len(), 0, "{cache:?}");
        assert_eq!(fs::metadata(host.path().join("sleep")).unwrap().len(), 0, "{cache:?}");
    }
}

#[test]
fn where_nobody_else_changes_the_tree_nothing_is_asked_twice() {
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("directory")).unwrap();
    for number in 0..100 {
        fs::write(host.path().join(format!("directory/{number}")), "content").unwrap();
    }
    let Some(pipe) = Pipe::new(host.path(), Cache::Always, Access::ReadWrite) else { return };
    let look = || {
        let mut names = 0;
        for entry in fs::read_dir(pipe.path("directory")).unwrap() {
            assert_eq!(fs::read(entry.unwrap().path()).unwrap(), b"content");
            names += 1;
        }
        names
    };
    assert_eq!(look(), 100);
    // The kernel keeps a list once it has been read to its end without a change of position.
    assert_eq!(look(), 100);
    let before = pipe.traffic();
    assert_eq!(look(), 100);
    assert_eq!(pipe.traffic(), before);
    // Its own changes are seen.
    fs::write(pipe.path("directory/100"), "content").unwrap();
    fs::remove_file(pipe.path("directory/7")).unwrap();
    fs::rename(pipe.path("directory/8"), pipe.path("directory/eight")).unwrap();
    fs::write(pipe.path("directory/101"), "content").unwrap();
    assert_eq!(look(), 101);
}

#[test]
fn files_that_are_not_opened_do_all_that_files_do() {
    let host = tempfile::tempdir().unwrap();
    let Some(pipe) = Pipe::new(host.path(), Cache::Always, Access::ReadWrite) else { return };
    fs::write(host.path().join("old"), "before").unwrap();
    let read_only = File::open(pipe.path("old")).unwrap();
    let mut text = String::new();
    (&read_only).read_to_string(&mut text).unwrap();
    let mut file = OpenOptions::new().append(true).read(true).open(pipe.path("old")).unwrap();
    file.write_all(b" and after").unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(host.path().join("old")).unwrap(), b"before and after");
    fs::write(pipe.path("old"), "short").unwrap();
    assert_eq!(fs::read(host.path().join("old")).unwrap(), b"short");
    // It is there for whoever has it open, however it was opened.
    fs::remove_file(pipe.path("old")).unwrap();
    file.write_all_at(b"S", 0).unwrap();
    let mut byte = [0];
    read_only.read_exact_at(&mut byte, 1).unwrap();
    assert_eq!((byte, read_only.metadata().unwrap().nlink()), (*b"h", 0));

    // Made without the right to write to it, and open for that.
    let mut options = OpenOptions::new();
    let sparse = options.write(true).create_new(true).mode(0o400).open(pipe.path("sparse")).unwrap();
    sparse.set_len(1 << 20).unwrap();
    sparse.write_all_at(b"data", 512 << 10).unwrap();
    fallocate(&sparse, FallocateFlags::empty(), 1 << 20, 4096).unwrap();
    let again = File::open(pipe.path("sparse")).unwrap();
    assert_eq!(seek(&again, SeekFrom::Data(0)).unwrap(), 512 << 10);
    assert_eq!(seek(&again, SeekFrom::Hole(512 << 10)).unwrap(), (512 << 10) + 4096);
    drop(sparse);
    let copy = File::create(pipe.path("copy")).unwrap();
    let mut at = 512 << 10;
    assert_eq!(copy_file_range(&again, Some(&mut at), &copy, None, 4).unwrap(), 4);
    assert_eq!(fs::read(host.path().join("copy")).unwrap(), b"data");
    assert_eq!(fs::metadata(host.path().join("sparse")).unwrap().mode() & 0o777, 0o400);
    File::open(pipe.guest.path()).unwrap().sync_all().unwrap();
}

#[test]
fn what_has_not_changed_is_not_read_again() {
    // A file that nobody changes, and has not just been made: this program.
    let program = std::env::current_exe().unwrap();
    let Some(pipe) = Pipe::new(program.parent().unwrap(), Cache::Auto, Access::ReadOnly) else { return };
    let path = pipe.path(program.file_name().unwrap().to_str().unwrap());
    let content = fs::read(&path).unwrap();
    assert!(content == fs::read(&program).unwrap());
    let before = pipe.traffic();
    assert!(fs::read(&path).unwrap() == content);
    let (requests, bytes) = pipe.traffic();
    assert!(requests - before.0 < 10 && bytes - before.1 < 4096, "{before:?} {requests} {bytes}");
}

#[test]
fn what_the_host_changes_is_read_by_the_next_who_opens_it() {
    let host = tempfile::tempdir().unwrap();
    let Some(pipe) = Pipe::new(host.path(), Cache::Auto, Access::ReadWrite) else { return };
    let file = host.path().join("file");
    // Always as long, and as fast as it goes: also within one tick of the clock.
    for round in 10_000..12_000 {
        fs::write(&file, round.to_string()).unwrap();
        for _ in 0..round % 3 {
            assert_eq!(fs::read_to_string(pipe.path("file")).unwrap(), round.to_string());
        }
    }
}
