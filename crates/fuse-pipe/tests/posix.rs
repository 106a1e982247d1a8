//! What programs rely on and test suites seldom look at, through the pipe.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::PathBuf,
    thread,
};

use fuse_pipe::{
    client::{Audience, Client, Mounted, Options, Permissions},
    passthrough::{self, Cache, Passthrough, Watch},
    server::Server,
    stream::Stream,
};
use rustix::{
    fs::{AtFlags, CWD, Mode, StatxFlags, XattrFlags, setxattr, statx},
    process::{Gid, Uid, umask},
    thread::{UnshareFlags, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

mod forked;
mod mapped;
mod support;

use mapped::Mapped;
use support::{directory, directory_of_root};

/// The user that nobody is.
const ORDINARY: u32 = 1000;

struct Pipe {
    host: tempfile::TempDir,
    guest: tempfile::TempDir,
    mounted: Mounted,
}

impl Pipe {
    fn new(cache: Cache, audience: Audience) -> Option<Self> {
        let guest = directory()?;
        let host = tempfile::tempdir().unwrap();
        let watch = Watch::On;
        let options = passthrough::Options { cache, watch, ..passthrough::Options::default() };
        let server = Server::new(Passthrough::new(host.path(), options).unwrap());
        let streams = (0..2).map(|_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let server = server.clone();
            thread::spawn(move || server.serve(Stream::new(theirs).unwrap()));
            Stream::new(ours).unwrap()
        });
        let options = Options { audience, permissions: Permissions::Kernel, ..Options::default() };
        let mounted = Client::mount(guest.path(), streams.collect(), &options).unwrap();
        fs::set_permissions(guest.path(), fs::Permissions::from_mode(0o777)).unwrap();
        Some(Self { host, guest, mounted })
    }

    fn guest(&self, name: &str) -> PathBuf {
        self.guest.path().join(name)
    }

    fn host(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    fn end(self) {
        self.mounted.unmount().unwrap();
    }
}

const CACHES: [Cache; 4] = [Cache::Auto, Cache::Always, Cache::Never, Cache::Exclusive];

fn each_cache(test: impl Fn(&Pipe, Cache)) {
    for cache in CACHES {
        let Some(pipe) = Pipe::new(cache, Audience::Owner) else { return };
        test(&pipe, cache);
        pipe.end();
    }
}

/// In a thread with a mask of its own.
fn with_mask<T: Send>(mask: u32, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let masked = scope.spawn(|| {
            forked::sys::unshare(UnshareFlags::FS).unwrap();
            umask(Mode::from_raw_mode(mask));
            act()
        });
        masked.join().unwrap()
    })
}

fn as_ordinary_user<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let user = scope.spawn(|| {
            set_thread_groups(&[]).unwrap();
            let (uid, gid) = (Uid::from_raw(ORDINARY), Gid::from_raw(ORDINARY));
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
            act()
        });
        user.join().unwrap()
    })
}

fn mode(path: PathBuf) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_mask_counts_except_where_a_default_list_does() {
    each_cache(|pipe, cache| {
        let make = |name: &str| {
            let at = |suffix: &str| pipe.guest(&format!("{name}{suffix}"));
            with_mask(0o077, || {
                File::options().write(true).create_new(true).mode(0o666).open(at("/file")).unwrap();
                fs::create_dir(at("/directory")).unwrap();
            });
            (mode(pipe.host(&format!("{name}/file"))), mode(pipe.host(&format!("{name}/directory"))))
        };
        fs::create_dir(pipe.guest("plain")).unwrap();
        assert_eq!(make("plain"), (0o600, 0o700), "{cache:?}");

        fs::create_dir(pipe.guest("listed")).unwrap();
        let entries: [(u16, u16); 3] = [(1, 7), (4, 5), (32, 4)];
        let mut list = 2_u32.to_le_bytes().to_vec();
        for (tag, rights) in entries {
            list.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &u32::MAX.to_le_bytes()].concat());
        }
        setxattr(pipe.guest("listed"), "system.posix_acl_default", &list, XattrFlags::empty()).unwrap();
        assert_eq!(make("listed"), (0o644, 0o754), "{cache:?}");
    });
}

#[test]
fn files_without_a_name_go_on_for_who_has_them_open() {
    each_cache(|pipe, cache| {
        fs::write(pipe.guest("removed"), "removed").unwrap();
        fs::write(pipe.guest("replaced"), "replaced").unwrap();
        fs::write(pipe.guest("new"), "new").unwrap();
        let open = |name: &str| OpenOptions::new().read(true).write(true).open(pipe.guest(name)).unwrap();
        let (removed, replaced) = (open("removed"), open("replaced"));
        fs::remove_file(pipe.guest("removed")).unwrap();
        fs::rename(pipe.guest("new"), pipe.guest("replaced")).unwrap();
        for (file, content) in [(&removed, "removed"), (&replaced, "replaced")] {
            file.write_all_at(b"R", 0).unwrap();
            file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
            let mut bytes = vec![0; content.len()];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(bytes, content.replacen('r', "R", 1).into_bytes(), "{cache:?}");
            let found = file.metadata().unwrap();
            assert_eq!((found.nlink(), found.len(), found.mode() & 0o777), (0, content.len() as u64, 0o600));
            file.set_len(3).unwrap();
            file.sync_all().unwrap();
            assert_eq!(file.metadata().unwrap().len(), 3, "{cache:?}");
        }
        assert_eq!(fs::read(pipe.guest("replaced")).unwrap(), b"new");
        assert_eq!(fs::metadata(pipe.guest("removed")).unwrap_err().kind(), ErrorKind::NotFound);
        let directory = File::open(pipe.guest.path()).unwrap();
        directory.sync_all().unwrap();
    });
}

#[test]
fn what_is_written_to_memory_is_in_the_hosts_file() {
    each_cache(|pipe, cache| {
        let size = 3 * 4096 + 10;
        fs::write(pipe.guest("file"), vec![b'.'; size]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(pipe.guest("file")).unwrap();
        let memory = Mapped::new(&file, size);
        for place in [0, 4095, 4096, size - 1] {
            assert_eq!(memory.read(place), b'.');
            memory.write(place, b'x');
        }
        memory.sync();
        let host = fs::read(pipe.host("file")).unwrap();
        let written: Vec<_> = (0..size).filter(|place| host[*place] == b'x').collect();
        assert_eq!((host.len(), written), (size, vec![0, 4095, 4096, size - 1]), "{cache:?}");
        // By the other way it is the same memory.
        file.write_all_at(b"y", 4096).unwrap();
        assert_eq!(memory.read(4096), b'y', "{cache:?}");
        // To unmap what is not written yet waits for the server with this process's memory locked, which the
        // server, here the same process, may need.
        file.sync_all().unwrap();
        drop(memory);
    });
}

#[test]
fn names_are_bytes() {
    each_cache(|pipe, cache| {
        let longest = [b'x'; 255];
        let names: [&[u8]; 5] = [b"\xff\xfe", b"\x01\n\t", "\u{fc}\u{4e16}".as_bytes(), b" . ", &longest];
        for name in names {
            let name = OsStr::from_bytes(name);
            fs::write(pipe.guest.path().join(name), name.as_bytes()).unwrap();
            assert_eq!(fs::read(pipe.host.path().join(name)).unwrap(), name.as_bytes());
        }
        let list = |path: &std::path::Path| -> HashSet<_> {
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_encoded_bytes()).collect()
        };
        let expected: HashSet<_> = names.into_iter().map(<[u8]>::to_vec).collect();
        assert_eq!(
            (list(pipe.guest.path()), list(pipe.host.path())),
            (expected.clone(), expected),
            "{cache:?}"
        );
        let too_long = pipe.guest.path().join(OsStr::from_bytes(&[b'x'; 256]));
        assert_eq!(File::create(too_long).unwrap_err().raw_os_error(), Some(libc::ENAMETOOLONG));
    });
}

#[test]
fn the_time_of_birth_is_the_hosts() {
    each_cache(|pipe, _| {
        fs::write(pipe.guest("file"), "x").unwrap();
        let born = |path: PathBuf| {
            let found = statx(CWD, path, AtFlags::empty(), StatxFlags::BTIME).unwrap();
            assert_ne!(found.stx_mask & StatxFlags::BTIME.bits(), 0);
            (found.stx_btime.tv_sec, found.stx_btime.tv_nsec)
        };
        assert_eq!(born(pipe.guest("file")), born(pipe.host("file")));
    });
}

#[test]
fn root_others_may_use_a_mount_that_is_for_everyone_only() {
    if directory_of_root().is_none() {
        return;
    }
    for (audience, allowed) in [(Audience::Owner, false), (Audience::Everyone, true)] {
        let pipe = Pipe::new(Cache::Auto, audience).unwrap();
        fs::write(pipe.guest("file"), "x").unwrap();
        fs::write(pipe.guest("secret"), "x").unwrap();
        fs::set_permissions(pipe.guest("secret"), fs::Permissions::from_mode(0o600)).unwrap();
        let (file, secret, new) = as_ordinary_user(|| {
            let refused = |result: std::io::Result<()>| result.err().map(|error| error.kind());
            (
                refused(fs::read(pipe.guest("file")).map(drop)),
                refused(fs::read(pipe.guest("secret")).map(drop)),
                refused(fs::write(pipe.guest("new"), "x")),
            )
        });
        let expected = (!allowed).then_some(ErrorKind::PermissionDenied);
        assert_eq!((file, new), (expected, expected));
        assert_eq!(secret, Some(ErrorKind::PermissionDenied));
        if allowed {
            assert_eq!(fs::metadata(pipe.host("new")).unwrap().uid(), ORDINARY);
        }
        pipe.end();
    }
}

#[test]
fn slow_directories_of_65536_files_are_listed_and_emptied() {
    let Some(pipe) = Pipe::new(Cache::Auto, Audience::Owner) else { return };
    fs::create_dir(pipe.host("many")).unwrap();
    for number in 0..65536 {
        File::create(pipe.host(&format!("many/{number}"))).unwrap();
    }
    // First with what each is, as the kernel asks for it, then the names only.
    for _ in 0..2 {
        let names: HashSet<_> =
            fs::read_dir(pipe.guest("many")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 65536);
    }
    // While it is read, files are removed from it.
    let mut removed = 0;
    for entry in fs::read_dir(pipe.guest("many")).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().is_ok_and(|file| file.is_file()) {
            fs::remove_file(entry.path()).unwrap();
            removed += 1;
        }
    }
    assert_eq!(removed, 65536);
    fs::remove_dir(pipe.guest("many")).unwrap();
    assert!(!pipe.host("many").exists());
    pipe.end();
}
