//! What others change on the host is seen by the client.
//!
//! The server takes what its own process does for the client's doing, so everything that happens on the
//! host is done by other programs.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs::{self, File},
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use fuse_pipe::{
    client::{Client, Mounted, Options},
    passthrough::{self, Passthrough, Watch},
    server::Server,
    stream::Stream,
};

mod support;

use support::directory;

struct Pipe {
    host: tempfile::TempDir,
    guest: tempfile::TempDir,
    mounted: Mounted,
}

impl Pipe {
    fn new(watch: Watch) -> Option<Self> {
        let guest = directory()?;
        let host = tempfile::tempdir().unwrap();
        let options = passthrough::Options { watch, ..passthrough::Options::default() };
        let files = Passthrough::new(host.path(), options).unwrap();
        if watch == Watch::On
            && let Err(reason) = files.watched()
        {
            fcvm_testkit::skip(format!("nothing can be watched: {reason}"));
            return None;
        }
        let server = Server::new(files);
        let streams = (0..2).map(|_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let server = server.clone();
            thread::spawn(move || server.serve(Stream::new(theirs).unwrap()).unwrap());
            Stream::new(ours).unwrap()
        });
        let mounted = Client::mount(guest.path(), streams.collect(), &Options::default()).unwrap();
        Some(Self { host, guest, mounted })
    }

    fn guest(&self, name: &str) -> PathBuf {
        self.guest.path().join(name)
    }

    /// Has a shell do something in the host's directory.
    fn host(&self, script: &str) {
        let status =
            Command::new("sh").args(["-euc", script]).current_dir(self.host.path()).status().unwrap();
        assert!(status.success(), "{script}");
    }

    fn requests(&self) -> u64 {
        self.mounted.statistics().iter().map(|lane| lane.requests).sum()
    }
}

/// How long it takes until this is so.
fn until(what: &str, mut is: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what} is not seen");
        // Who only looks leaves the CPU to those who do.
        thread::sleep(Duration::from_micros(200));
    }
    start.elapsed()
}

/// Every kind of change, and how long each took to be seen.
fn changes(pipe: &Pipe) -> Vec<(&'static str, Duration)> {
    pipe.host("mkdir sub; echo old > sub/file; echo x > sub/gone; echo y > sub/moved; echo z > sub/over");
    let path = |name: &str| pipe.guest(&format!("sub/{name}"));
    let names = || fs::read_dir(pipe.guest("sub")).unwrap().count();
    let exists = |name: &str| fs::symlink_metadata(path(name)).is_ok();
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    let open = {
        assert!(exists("gone") && exists("moved") && !exists("new") && !exists("renamed"));
        assert_eq!((read("file").as_str(), read("over").as_str(), names()), ("old\n", "z\n", 4));
        File::open(path("file")).unwrap()
    };
    let mut seen = Vec::new();
    let mut change = |what, script: &str, is: &mut dyn FnMut() -> bool| {
        pipe.host(script);
        seen.push((what, until(what, is)));
    };
    change("size", "echo more >> sub/file", &mut || fs::metadata(path("file")).unwrap().len() == 9);
    change("content", "printf 'new' | dd of=sub/file conv=notrunc status=none", &mut || {
        read("file") == "new\nmore\n"
    });
    change("content of an open file", "printf 'NEW' | dd of=sub/file conv=notrunc status=none", &mut || {
        let mut bytes = [0; 3];
        std::os::unix::fs::FileExt::read_exact_at(&open, &mut bytes, 0).unwrap();
        bytes == *b"NEW"
    });
    change("mode", "chmod 600 sub/file", &mut || fs::metadata(path("file")).unwrap().mode() & 0o777 == 0o600);
    change("truncated", ": > sub/file", &mut || open.metadata().unwrap().len() == 0);
    change("a new name", "echo hello > sub/new", &mut || exists("new") && read("new") == "hello\n");
    change("a removed name", "rm sub/gone", &mut || !exists("gone"));
    change("a renamed name", "mv sub/moved sub/renamed", &mut || !exists("moved") && exists("renamed"));
    change("a name that is another file", "echo other > tmp; mv tmp sub/over", &mut || {
        read("over") == "other\n"
    });
    change("a listing", "touch sub/a sub/b", &mut || names() == 6);
    change("a directory that is removed", "rm -r sub", &mut || !pipe.guest("sub").exists());
    seen
}

#[test]
fn changes_of_the_host_are_told_measured_alone() {
    let Some(pipe) = Pipe::new(Watch::On) else { return };
    let seen = changes(&pipe);
    for (what, took) in &seen {
        println!("{what}: {:.1} ms", took.as_secs_f64() * 1e3);
    }
    for (what, took) in seen {
        assert!(took < Duration::from_millis(50), "{what} took {took:?}");
    }
    pipe.mounted.unmount().unwrap();
}

#[test]
fn changes_of_the_host_are_seen_later_by_who_is_not_told() {
    let Some(pipe) = Pipe::new(Watch::Off) else { return };
    for (what, took) in changes(&pipe) {
        println!("{what}: {:.1} ms", took.as_secs_f64() * 1e3);
    }
    pipe.mounted.unmount().unwrap();
}

/// While nothing happens nobody asks, and what the client does itself is no news.
#[test]
fn what_is_watched_is_kept() {
    let Some(pipe) = Pipe::new(Watch::On) else { return };
    let path = pipe.guest("file");
    fs::write(pipe.host.path().join("before"), "xy").unwrap();
    fs::rename(pipe.guest("before"), &path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let look = || assert!(fs::metadata(&path).unwrap().len() == 2 && !pipe.guest("none").exists());
    look();
    let before = pipe.requests();
    let start = Instant::now();
    // Longer than anything is kept that is not watched.
    while start.elapsed() < Duration::from_millis(1200) {
        look();
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(pipe.requests(), before);
    pipe.mounted.unmount().unwrap();
}

/// A lookup's reply and a change of what it tells of race each other; the last word is the change's.
#[test]
fn a_change_is_not_lost_to_a_lookup_under_way() {
    let Some(pipe) = Pipe::new(Watch::On) else { return };
    let rounds = 300;
    for number in 0..rounds {
        fs::write(pipe.host.path().join(format!("{number}")), "").unwrap();
    }
    // One program, which is told when to go on by its standard input.
    let script = format!(
        "i=0; while [ $i -lt {rounds} ]; do echo change > $i; mv $i $i.; echo > new$i; i=$((i+1)); done"
    );
    let mut program =
        Command::new("sh").args(["-euc", &script]).current_dir(pipe.host.path()).spawn().unwrap();
    let look = |number: u32| {
        let at = |name: String| fs::metadata(pipe.guest(&name)).map(|file| file.len()).ok();
        (at(format!("{number}")), at(format!("{number}.")), at(format!("new{number}")))
    };
    while program.try_wait().unwrap().is_none() {
        for number in 0..rounds {
            look(number);
        }
    }
    for number in 0..rounds {
        until("the last change", || look(number) == (None, Some(7), Some(1)));
    }
    let start = Instant::now();
    assert!((0..rounds).all(|number| look(number) == (None, Some(7), Some(1))));
    assert!(start.elapsed() < Duration::from_secs(10));
    pipe.mounted.unmount().unwrap();
}
