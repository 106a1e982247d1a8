//! A single file is served, and mounted over a file.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::{
        fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fuse_pipe::{
    client::{Client, Mounted, Options},
    passthrough::{self, Access, Passthrough, Watch},
    server::Server,
    stream::Stream,
};
use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

mod forked;
mod mapped;
mod support;

use forked::{Forked, confined};
use mapped::Mapped;
use support::{directory, directory_of_root, is_mounted};

/// A file, and another over which it is mounted.
struct Pipe {
    directory: tempfile::TempDir,
    mounted: Mounted,
}

impl Pipe {
    fn new(options: passthrough::Options) -> Option<Self> {
        Self::of(options, |path| Some(vec![served(path, options)]))
    }

    fn of(options: passthrough::Options, serve: impl FnOnce(&Path) -> Option<Vec<Stream>>) -> Option<Self> {
        let directory = directory()?;
        fs::write(directory.path().join("host"), "content").unwrap();
        fs::write(directory.path().join("guest"), "below").unwrap();
        let streams = serve(&directory.path().join("host"))?;
        let access = match options.access {
            Access::ReadOnly => fuse_pipe::client::Access::ReadOnly,
            Access::ReadWrite => fuse_pipe::client::Access::ReadWrite,
        };
        let options = Options { access, ..Options::default() };
        let mounted = Client::mount(&directory.path().join("guest"), streams, &options).unwrap();
        Some(Self { directory, mounted })
    }

    fn host(&self) -> PathBuf {
        self.directory.path().join("host")
    }

    fn guest(&self) -> PathBuf {
        self.directory.path().join("guest")
    }
}

fn served(path: &Path, options: passthrough::Options) -> Stream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = Server::new(Passthrough::new(path, options).unwrap());
    thread::spawn(move || server.serve(Stream::new(theirs).unwrap()));
    Stream::new(ours).unwrap()
}

fn everything(pipe: &Pipe) {
    let (host, guest) = (pipe.host(), pipe.guest());
    assert_eq!(fs::read(&guest).unwrap(), b"content");
    let file = OpenOptions::new().read(true).write(true).open(&guest).unwrap();
    file.write_all_at(b"X", 3).unwrap();
    assert_eq!(fs::read(&host).unwrap(), b"conXent");
    file.set_len(5).unwrap();
    OpenOptions::new().append(true).open(&guest).unwrap().write_all(b"!").unwrap();
    assert_eq!(fs::read(&host).unwrap(), b"conXe!");
    fs::write(&guest, "anew").unwrap();
    assert_eq!(fs::read(&host).unwrap(), b"anew");
    let memory = Mapped::new(&file, 4);
    memory.write(0, b'A');
    memory.sync();
    assert_eq!((fs::read(&host).unwrap().as_slice(), memory.read(3)), (b"Anew".as_slice(), b'w'));
    drop(memory);
    fs::set_permissions(&guest, fs::Permissions::from_mode(0o640)).unwrap();
    let (ours, theirs) = (fs::metadata(&host).unwrap(), fs::metadata(&guest).unwrap());
    assert_eq!((ours.mode(), ours.ino(), ours.len()), (theirs.mode(), theirs.ino(), theirs.len()));
    assert_eq!(fs::read_dir(&guest).unwrap_err().kind(), ErrorKind::NotADirectory);
    assert!(fs::metadata(guest.join("name")).is_err());
}

#[test]
fn a_file_is_read_written_cut_and_mapped() {
    let Some(pipe) = Pipe::new(passthrough::Options::default()) else { return };
    everything(&pipe);
    let guest = pipe.guest();
    pipe.mounted.unmount().unwrap();
    assert_eq!(fs::read(guest).unwrap(), b"below");
}

#[test]
fn a_file_is_served_by_who_is_confined_to_it() {
    let mut process: Option<Forked> = None;
    let options = passthrough::Options { watch: Watch::On, ..passthrough::Options::default() };
    let serve = |path: &Path| {
        let (forked, streams) = confined::serve(path, options, 2)?;
        process = Some(forked);
        Some(streams)
    };
    let Some(pipe) = Pipe::of(options, serve) else { return };
    everything(&pipe);
    pipe.mounted.unmount().unwrap();
    process.unwrap().end();
}

#[test]
fn a_file_that_is_read_only_stays_as_it_is() {
    let options = passthrough::Options { access: Access::ReadOnly, ..passthrough::Options::default() };
    let Some(pipe) = Pipe::new(options) else { return };
    assert_eq!(fs::read(pipe.guest()).unwrap(), b"content");
    assert_eq!(fs::write(pipe.guest(), "x").unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(fs::read(pipe.host()).unwrap(), b"content");
    pipe.mounted.unmount().unwrap();
}

#[test]
fn changes_of_the_file_are_told() {
    let options = passthrough::Options { watch: Watch::On, ..passthrough::Options::default() };
    let Some(pipe) = Pipe::new(options) else { return };
    let look = || fs::metadata(pipe.guest()).unwrap().len();
    assert_eq!(look(), 7);
    // What it was is kept for a minute.
    let status =
        Command::new("sh").args(["-c", "echo more >> host"]).current_dir(pipe.directory.path()).status();
    assert!(status.unwrap().success());
    let start = Instant::now();
    while look() != 12 {
        assert!(start.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_micros(200));
    }
    pipe.mounted.unmount().unwrap();
}

#[test]
fn what_is_neither_file_nor_directory_is_not_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let _socket = UnixListener::bind(&path).unwrap();
    let error = Passthrough::new(&path, passthrough::Options::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[test]
fn root_an_ordinary_user_mounts_over_a_file() {
    let Some(directory) = directory_of_root() else { return };
    if !fcvm_testkit::needs_programs(&["fusermount3"]) {
        return;
    }
    if fs::metadata("/dev/fuse").unwrap().mode() & 0o006 != 0o006 {
        fcvm_testkit::skip("ordinary users may not open `/dev/fuse`");
        return;
    }
    let (host, guest) = (directory.path().join("host"), directory.path().join("guest"));
    fs::write(&host, "content").unwrap();
    File::create(&guest).unwrap();
    for path in [directory.path(), &host, &guest] {
        chown(path, Some(65534), Some(65534)).unwrap();
    }
    thread::scope(|scope| {
        let user = scope.spawn(|| {
            let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            let stream = served(&host, passthrough::Options::default());
            let mounted = Client::mount(&guest, vec![stream], &Options::default()).unwrap();
            fs::write(&guest, "by the user").unwrap();
            mounted.unmount().unwrap();
        });
        user.join().unwrap();
    });
    assert!(!is_mounted(&guest));
    assert_eq!(fs::read(&host).unwrap(), b"by the user");
}
