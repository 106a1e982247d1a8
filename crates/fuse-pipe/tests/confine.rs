//! A process that is confined does not get out.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    env,
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    net::UdpSocket,
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    process::Command,
    thread,
};

use fuse_pipe::{
    passthrough::{Access, GuestGid, GuestUid, Ids, Options},
    server::confine::{ConfineError, confine},
};
use rustix::{
    io::Errno,
    mount::{MountFlags, mount},
    process::{Pid, Signal, getppid, kill_process},
    thread::{CapabilitySet, UnshareFlags},
};

mod forked;

use forked::{Forked, sys};

fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), "content").unwrap();
    fs::create_dir(directory.path().join("sub")).unwrap();
    symlink("/etc/passwd", directory.path().join("out")).unwrap();
    directory
}

#[test]
fn who_is_confined_gets_at_nothing_else() {
    let directory = prepared();
    Forked::start(|| tries_to_get_out(directory.path())).end();
}

#[test]
fn who_is_confined_to_reading_changes_nothing() {
    let directory = prepared();
    Forked::start(|| tries_to_change_something(directory.path())).end();
    assert_eq!(fs::read(directory.path().join("file")).unwrap(), b"content");
}

/// What the kernel says of a process that is confined so.
fn privileges(options: Options) -> Option<(String, CapabilitySet)> {
    let directory = prepared();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let process = Forked::start(|| {
        let confined = is_confined(directory.path(), options);
        theirs.write_all(&[u8::from(confined)]).unwrap();
        theirs.read_exact(&mut [0]).unwrap();
    });
    let mut confined = [0];
    ours.read_exact(&mut confined).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    ours.write_all(&[0]).unwrap();
    process.end();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    let permitted = u64::from_str_radix(&field("CapPrm:"), 16).unwrap();
    let summary = format!("{} {}", field("NoNewPrivs:"), field("Seccomp:"));
    (confined == [1]).then(|| (summary, CapabilitySet::from_bits_retain(permitted)))
}

#[test]
fn only_what_is_needed_is_left() {
    let Some((summary, left)) = privileges(Options::default()) else { return };
    // The second word says that filters are on.
    assert_eq!(summary, "1 2");
    assert!(
        !left.intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE | CapabilitySet::SYS_CHROOT)
    );
    assert_eq!(left.contains(CapabilitySet::CHOWN), rustix::process::geteuid().is_root());
    let squash = Ids::Squash { uid: GuestUid(0), gid: GuestGid(0) };
    let left = privileges(Options { ids: squash, ..Options::default() }).unwrap().1;
    assert_eq!(left, CapabilitySet::empty());
}

#[test]
fn it_is_too_late_for_who_has_threads() {
    let (ended, end) = std::sync::mpsc::channel::<()>();
    let other = thread::spawn(move || end.recv());
    let error = confine(&env::temp_dir(), &Options::default()).unwrap_err();
    assert!(matches!(error, ConfineError::Threads { threads } if threads > 1), "{error:?}");
    drop(ended);
    other.join().unwrap().unwrap_err();
}

/// Whether it worked; a printed reason where this kernel cannot.
fn is_confined(directory: &Path, options: Options) -> bool {
    let report = confine(directory, &options).unwrap();
    for reason in report.reasons() {
        fcvm_testkit::skip(format!("not confined: {reason}"));
    }
    report.is_complete()
}

fn tries_to_get_out(directory: &Path) {
    let parent = getppid();
    if !is_confined(directory, Options::default()) {
        return;
    }
    // What is served can be worked with.
    assert_eq!(fs::read(directory.join("file")).unwrap(), b"content");
    fs::write(directory.join("new"), "x").unwrap();
    fs::rename(directory.join("new"), directory.join("sub/new")).unwrap();
    assert_eq!(thread::spawn(|| 5).join().unwrap(), 5);

    let refused = |what: &str, error: std::io::Error| {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
    };
    refused("a file elsewhere", File::open("/etc/passwd").unwrap_err());
    refused("a file elsewhere by a link", File::open(directory.join("out")).unwrap_err());
    refused("a directory elsewhere", fs::read_dir("/").unwrap_err());
    refused("a new file elsewhere", File::create("/tmp/fuse-pipe-escaped").unwrap_err());
    refused("a link elsewhere", fs::hard_link(directory.join("file"), "/tmp/fuse-pipe-escaped").unwrap_err());
    refused(
        "a file in another thread",
        thread::spawn(|| File::open("/etc/passwd")).join().unwrap().unwrap_err(),
    );
    refused("memory of this process", File::options().write(true).open("/proc/self/mem").unwrap_err());
    refused("a Unix socket", UnixStream::connect("/run/none").unwrap_err());
    refused("a socket", UdpSocket::bind("127.0.0.1:0").unwrap_err());
    refused("a program", Command::new("/bin/true").spawn().unwrap_err());
    refused("tracing", sys::trace_me().unwrap_err());
    let mounted = mount("none", directory, "tmpfs", MountFlags::empty(), None);
    assert_eq!(mounted.unwrap_err(), Errno::PERM);
    assert_eq!(rustix::process::chroot(directory).unwrap_err(), Errno::PERM);
    assert_eq!(kill_process(parent.unwrap_or(Pid::INIT), Signal::URG).unwrap_err(), Errno::PERM);
    for namespace in [UnshareFlags::NEWUSER, UnshareFlags::NEWNS, UnshareFlags::FILES] {
        assert_eq!(sys::unshare(namespace).unwrap_err(), Errno::PERM, "{namespace:?}");
    }
}

fn tries_to_change_something(directory: &Path) {
    let ids = Ids::Squash { uid: GuestUid(0), gid: GuestGid(0) };
    let options = Options { access: Access::ReadOnly, ids, ..Options::default() };
    if !is_confined(directory, options) {
        return;
    }
    assert_eq!(fs::read(directory.join("file")).unwrap(), b"content");
    for error in [
        File::options().write(true).open(directory.join("file")).map(drop),
        File::create(directory.join("new")).map(drop),
        fs::remove_file(directory.join("file")),
        fs::create_dir(directory.join("new")),
        fs::rename(directory.join("file"), directory.join("other")),
    ] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}
