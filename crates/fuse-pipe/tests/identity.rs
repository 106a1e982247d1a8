//! Whose files are whose, in the client and on the host.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::{
        fs::{
            FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, lchown,
            symlink,
        },
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use fuse_pipe::{
    client::{Audience, Client, Mounted, Options, Permissions},
    passthrough::{self, GuestGid, GuestUid, Ids, Passthrough},
    server::{Server, confine::confine},
    stream::Stream,
};
use rustix::{
    fs::{CWD, FileType, Mode, XattrFlags, getxattr, mknodat, setxattr},
    io::Errno,
    process::{Gid, Uid},
    thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

mod forked;
mod support;

use forked::{Forked, sys};

use support::directory_of_root;

const NOBODY: u32 = 65534;

/// This thread, and those that it starts, are this user from now on.
fn become_user(uid: u32, gid: u32, groups: &[u32]) {
    let groups: Vec<_> = groups.iter().map(|group| Gid::from_raw(*group)).collect();
    set_thread_groups(&groups).unwrap();
    let gid = Gid::from_raw(gid);
    set_thread_res_gid(gid, gid, gid).unwrap();
    let uid = Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, uid).unwrap();
}

/// Does something as another user.
fn as_user<T: Send>(uid: u32, gid: u32, groups: &[u32], act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let user = scope.spawn(|| {
            become_user(uid, gid, groups);
            act()
        });
        user.join().unwrap()
    })
}

struct Pipe {
    host: tempfile::TempDir,
    guest: tempfile::TempDir,
    mounted: Mounted,
}

impl Pipe {
    /// A mount for everybody by root, whose server is this user.
    fn new(server: u32, ids: Ids) -> Option<Self> {
        let guest = directory_of_root()?;
        let host = tempfile::tempdir().unwrap();
        chown(host.path(), Some(server), Some(server)).unwrap();
        fs::set_permissions(host.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ready, started) = mpsc::channel();
        let path = host.path().to_owned();
        thread::spawn(move || {
            if server != 0 {
                become_user(server, server, &[]);
            }
            let options = passthrough::Options { ids, ..passthrough::Options::default() };
            let server = Server::new(Passthrough::new(&path, options).unwrap());
            ready.send(()).unwrap();
            server.serve(Stream::new(theirs).unwrap()).unwrap();
        });
        started.recv().unwrap();
        let options =
            Options { audience: Audience::Everyone, permissions: Permissions::Kernel, ..Options::default() };
        let mounted = Client::mount(guest.path(), vec![Stream::new(ours).unwrap()], &options).unwrap();
        fs::set_permissions(guest.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Some(Self { host, guest, mounted })
    }

    fn guest(&self, name: &str) -> PathBuf {
        self.guest.path().join(name)
    }

    fn host(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }
}

fn owner(path: &Path) -> (u32, u32) {
    let file = fs::symlink_metadata(path).unwrap();
    (file.uid(), file.gid())
}

fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    bytes
}

#[test]
fn root_an_ordinary_users_server_is_the_clients_root() {
    let squash = Ids::Squash { uid: GuestUid(0), gid: GuestGid(0) };
    let Some(pipe) = Pipe::new(NOBODY, squash) else { return };
    fs::write(pipe.guest("file"), "x").unwrap();
    fs::create_dir(pipe.guest("directory")).unwrap();
    symlink("file", pipe.guest("link")).unwrap();
    mknodat(CWD, pipe.guest("fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    for name in ["file", "directory", "link", "fifo"] {
        assert_eq!(owner(&pipe.host(name)), (NOBODY, NOBODY), "{name}");
        assert_eq!(owner(&pipe.guest(name)), (0, 0), "{name}");
    }
    // Of whomever it is.
    as_user(1000, 1000, &[], || fs::write(pipe.guest("another's"), "x")).unwrap();
    assert_eq!(owner(&pipe.guest("another's")), (0, 0));

    fs::write(pipe.host("root's"), "x").unwrap();
    assert_eq!(owner(&pipe.guest("root's")), (NOBODY, NOBODY));

    // Who gives a file to whom it belongs already changes nothing, and anybody else cannot have it.
    chown(pipe.guest("file"), Some(0), Some(0)).unwrap();
    lchown(pipe.guest("link"), Some(0), None).unwrap();
    chown(pipe.guest("root's"), Some(NOBODY), Some(NOBODY)).unwrap();
    for (name, uid, gid) in [
        ("file", Some(1000), None),
        ("file", None, Some(1000)),
        ("file", Some(NOBODY), None),
        ("root's", Some(0), None),
    ] {
        let error = chown(pipe.guest(name), uid, gid).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{name} {uid:?} {gid:?}");
    }
    assert_eq!(owner(&pipe.host("root's")), (0, 0));

    fs::set_permissions(pipe.guest("file"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fs::metadata(pipe.host("file")).unwrap().mode() & 0o777, 0o640);
    // What the server's user may not do nobody may, though he were root in the client.
    fs::set_permissions(pipe.guest("root's"), fs::Permissions::from_mode(0o777)).unwrap_err();
    fs::write(pipe.guest("root's"), "y").unwrap_err();

    let undefined = u32::MAX;
    let list = |user| {
        acl(&[(1, 6, undefined), (2, 4, user), (4, 0, undefined), (16, 4, undefined), (32, 0, undefined)])
    };
    let set =
        |user| setxattr(pipe.guest("file"), "system.posix_acl_access", &list(user), XattrFlags::empty());
    set(0).unwrap();
    assert_eq!(set(1000).unwrap_err(), Errno::PERM);
    let mut value = [0; 128];
    let length = getxattr(pipe.host("file"), "system.posix_acl_access", &mut value).unwrap();
    assert_eq!(value[..length], list(NOBODY));
    let length = getxattr(pipe.guest("file"), "system.posix_acl_access", &mut value).unwrap();
    assert_eq!(value[..length], list(0));
    pipe.mounted.unmount().unwrap();
}

#[test]
fn root_an_ordinary_user_without_other_ids_makes_files_for_itself_only() {
    let Some(pipe) = Pipe::new(NOBODY, Ids::Same) else { return };
    as_user(NOBODY, NOBODY, &[], || fs::write(pipe.guest("own"), "x")).unwrap();
    assert_eq!(owner(&pipe.guest("own")), (NOBODY, NOBODY));
    let error = as_user(1000, 1000, &[], || fs::write(pipe.guest("another's"), "x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    pipe.mounted.unmount().unwrap();
}

#[test]
fn root_everybody_is_himself() {
    let Some(pipe) = Pipe::new(0, Ids::Same) else { return };
    as_user(1000, 1001, &[], || fs::write(pipe.guest("file"), "x")).unwrap();
    assert_eq!((owner(&pipe.host("file")), owner(&pipe.guest("file"))), ((1000, 1001), (1000, 1001)));
    chown(pipe.guest("file"), Some(7), Some(8)).unwrap();
    assert_eq!(owner(&pipe.host("file")), (7, 8));
    // A device is made by the server, with the mask and for the owner that the caller has.
    let device = rustix::fs::makedev(1, 3);
    mknodat(CWD, pipe.guest("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), device).unwrap();
    let made = fs::metadata(pipe.host("null")).unwrap();
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    assert!(made.file_type().is_char_device());
    assert_eq!((made.mode() & 0o777, made.rdev()), (0o666 & !mask.bits(), device));
    pipe.mounted.unmount().unwrap();
}

/// Who may write to a directory only by one of the groups may make files in it, and a directory with the
/// set-group-id bit gives its group on.
#[test]
fn root_supplementary_groups_count() {
    let Some(pipe) = Pipe::new(0, Ids::Same) else { return };
    let directory = pipe.host("shared");
    fs::create_dir(&directory).unwrap();
    chown(&directory, Some(0), Some(2000)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o2770)).unwrap();
    as_user(1000, 1000, &[5, 2000], || {
        fs::write(pipe.guest("shared/file"), "x").unwrap();
        fs::create_dir(pipe.guest("shared/sub")).unwrap();
        File::options().write(true).create_new(true).mode(0o2755).open(pipe.guest("shared/sgid")).unwrap();
    });
    assert_eq!(owner(&pipe.host("shared/file")), (1000, 2000));
    assert_eq!(owner(&pipe.host("shared/sub")), (1000, 2000));
    assert_eq!(fs::metadata(pipe.host("shared/sub")).unwrap().mode() & 0o2000, 0o2000);
    let error = as_user(1000, 1000, &[5], || fs::write(pipe.guest("shared/more"), "x")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    pipe.mounted.unmount().unwrap();
}

/// As root of a user namespace with a range of users: what an ordinary user has who has one.
#[test]
fn root_of_a_namespace_everybody_has_a_number_of_the_range() {
    const FIRST: u32 = 100_000;
    let Some(guest) = directory_of_root() else { return };
    let host = tempfile::tempdir().unwrap();
    chown(host.path(), Some(FIRST), Some(FIRST)).unwrap();
    fs::write(host.path().join("outside the range"), "x").unwrap();
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let (lane, far) = UnixStream::pair().unwrap();
    let mut lane = Some((lane, far));
    let process = Forked::start(|| {
        // The other end is not this process's, or the lane would have no end.
        let (_, far) = lane.take().unwrap();
        sys::unshare(UnshareFlags::NEWUSER).unwrap();
        theirs.write_all(&[0]).unwrap();
        // Now it has its users.
        theirs.read_exact(&mut [0]).unwrap();
        become_user(0, 0, &[]);
        let options = passthrough::Options::default();
        let report = confine(host.path(), &options).unwrap();
        assert!(report.capabilities.is_ok(), "{report:?}");
        let server = Server::new(Passthrough::new(host.path(), options).unwrap());
        server.serve(Stream::new(far).unwrap()).unwrap();
    });
    let (lane, _) = lane.take().unwrap();
    ours.read_exact(&mut [0]).unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", process.id()), format!("0 {FIRST} 65536")).unwrap();
    }
    ours.write_all(&[0]).unwrap();
    let options =
        Options { audience: Audience::Everyone, permissions: Permissions::Kernel, ..Options::default() };
    let mounted = Client::mount(guest.path(), vec![Stream::new(lane).unwrap()], &options).unwrap();
    let at = |name: &str| (guest.path().join(name), host.path().join(name));
    let owners = |(guest, host): (PathBuf, PathBuf)| (owner(&guest), owner(&host));

    fs::set_permissions(guest.path(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(at("root").0, "x").unwrap();
    as_user(1000, 1001, &[], || fs::write(at("user").0, "x")).unwrap();
    assert_eq!(owners(at("root")), ((0, 0), (FIRST, FIRST)));
    assert_eq!(owners(at("user")), ((1000, 1001), (FIRST + 1000, FIRST + 1001)));
    chown(at("user").0, Some(7), Some(8)).unwrap();
    assert_eq!(owners(at("user")), ((7, 8), (FIRST + 7, FIRST + 8)));
    // Who is not in the range is nobody, and cannot be had.
    assert_eq!(owners(at("outside the range")), ((NOBODY, NOBODY), (0, 0)));
    fs::set_permissions(at("outside the range").0, fs::Permissions::from_mode(0o777)).unwrap_err();
    chown(at("user").0, Some(70_000), None).unwrap_err();
    mounted.unmount().unwrap();
    process.end();
}
