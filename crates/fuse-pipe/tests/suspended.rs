//! Mounts that go over from one server to another, as those of a VM do that goes on from a snapshot.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::{fs::symlink, net::UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use fuse_pipe::{
    client::{Audience, Client, ClientError, Mounted, Options},
    passthrough::{self, Cache, Passthrough, State, Watch},
    server::Server,
    stream::Stream,
};
use rustix::fs::{FlockOperation, flock};

mod support;

use support::{Answer, directory, directory_of_root, serve, wait_for};

const PATIENCE: Duration = Duration::from_secs(30);
const LANES: usize = 2;

/// A server of a directory, and what ends its lanes.
struct Served {
    server: Server,
    ends: Vec<Stream>,
}

impl Served {
    fn new(files: Passthrough) -> Self {
        Self { server: Server::new(files), ends: Vec::new() }
    }

    fn lanes(&mut self) -> Vec<Stream> {
        let lane = |_| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let theirs = Stream::new(theirs).unwrap();
            self.ends.push(theirs.try_clone().unwrap());
            let server = self.server.clone();
            thread::spawn(move || server.serve(theirs));
            Stream::new(ours).unwrap()
        };
        (0..LANES).map(lane).collect()
    }

    /// As where a snapshot is made of the client's machine: its state goes elsewhere as bytes.
    fn save(&self) -> State {
        serde_json::from_slice(&serde_json::to_vec(&self.server.save()).unwrap()).unwrap()
    }

    fn hang_up(self) {
        self.ends.iter().for_each(|end| end.shutdown().unwrap());
    }
}

struct Place {
    host: tempfile::TempDir,
    guest: tempfile::TempDir,
    options: passthrough::Options,
    mounted: Mounted,
}

impl Place {
    fn new(options: passthrough::Options) -> Option<(Self, Served)> {
        let (guest, host) = (directory()?, tempfile::tempdir().unwrap());
        fs::write(host.path().join("file"), "0123456789").unwrap();
        let mut served = Served::new(Passthrough::new(host.path(), options).unwrap());
        let mount = Options { audience: Audience::Everyone, ..Options::default() };
        let mounted = Client::mount(guest.path(), served.lanes(), &mount).unwrap();
        Some((Self { host, guest, options, mounted }, served))
    }

    fn guest(&self, name: &str) -> PathBuf {
        self.guest.path().join(name)
    }

    fn host(&self, name: &str) -> PathBuf {
        self.host.path().join(name)
    }

    /// The mount goes over to a server of its own; what happens on the host meanwhile.
    fn go_over(&self, served: Served, meanwhile: impl FnOnce()) -> Served {
        self.mounted.suspend(PATIENCE).unwrap();
        let state = served.save();
        served.hang_up();
        meanwhile();
        let mut next = Served::new(Passthrough::resume(self.host.path(), self.options, &state).unwrap());
        self.mounted.reconnect(next.lanes(), PATIENCE).unwrap();
        next
    }
}

fn read(mut from: &File) -> io::Result<String> {
    let mut text = String::new();
    from.read_to_string(&mut text).map(|_| text)
}

#[test]
fn open_files_and_directories_go_over() {
    for cache in [Cache::Auto, Cache::Always, Cache::Never] {
        let options = passthrough::Options { cache, ..Default::default() };
        let Some((place, served)) = Place::new(options) else { return };
        fs::create_dir_all(place.guest("a/b")).unwrap();
        let open =
            |name| OpenOptions::new().read(true).append(true).create(true).open(place.guest(name)).unwrap();
        let (mut file, deep, fresh) = (open("file"), open("a/b/deep"), open("fresh"));
        file.seek(SeekFrom::Start(4)).unwrap();
        let mut names = fs::read_dir(place.guest("")).unwrap();
        names.next().unwrap().unwrap();

        let served = place.go_over(served, || {});
        assert_eq!(read(&file).unwrap(), "456789", "{cache:?}");
        (&deep).write_all(b"deep").unwrap();
        (&fresh).write_all(b"more").unwrap();
        assert_eq!(fs::read_to_string(place.host("a/b/deep")).unwrap(), "deep");
        assert_eq!(fs::read_to_string(place.host("fresh")).unwrap(), "more");
        assert_eq!(names.count(), 2, "a, file, fresh");
        fs::rename(place.guest("a/b/deep"), place.guest("moved")).unwrap();

        // And once more, with what has changed since.
        let served = place.go_over(served, || {});
        (&deep).write_all(b"er").unwrap();
        assert_eq!(fs::read_to_string(place.guest("moved")).unwrap(), "deeper");
        let known = served.server.statistics();
        drop((file, deep, fresh));
        place.mounted.unmount().unwrap();
        assert!(known.nodes >= 4, "{known:?}");
    }
}

#[test]
fn who_uses_a_suspended_mount_waits() {
    let Some((place, served)) = Place::new(passthrough::Options::default()) else { return };
    place.mounted.suspend(PATIENCE).unwrap();
    place.mounted.suspend(PATIENCE).unwrap();
    let (path, (tell, told)) = (place.guest("new"), mpsc::channel());
    let writer = thread::spawn(move || {
        fs::write(path, "x").unwrap();
        tell.send(()).unwrap();
    });
    assert!(told.recv_timeout(Duration::from_millis(100)).is_err(), "nobody answers");
    assert!(!place.host("new").exists());
    place.mounted.resume();
    writer.join().unwrap();
    assert_eq!(fs::read_to_string(place.host("new")).unwrap(), "x");
    let error = place.mounted.reconnect(Vec::new(), PATIENCE).unwrap_err();
    assert!(matches!(error, ClientError::NotSuspended), "{error}");
    place.mounted.suspend(PATIENCE).unwrap();
    let error = place.mounted.reconnect(Vec::new(), PATIENCE).unwrap_err();
    assert!(matches!(error, ClientError::Streams { streams: 0, lanes: LANES }), "{error}");
    place.mounted.resume();
    drop(served);
    fs::read(place.guest("new")).unwrap();
}

#[test]
fn nothing_is_lost_however_often_it_is_suspended() {
    let Some((place, mut served)) = Place::new(passthrough::Options::default()) else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let work = |number: u32| {
        let (path, stop) = (place.guest(&format!("of {number}")), Arc::clone(&stop));
        thread::spawn(move || {
            let mut file = OpenOptions::new().append(true).create(true).open(&path).unwrap();
            let mut lines = 0;
            while !stop.load(Relaxed) {
                writeln!(file, "{lines}").unwrap();
                assert_eq!(fs::metadata(&path).unwrap().len(), file.stream_position().unwrap());
                lines += 1;
            }
            (path, lines)
        })
    };
    let workers: Vec<_> = (0..4).map(work).collect();
    for round in 0..400 {
        if round % 2 == 0 {
            served = place.go_over(served, || {});
        } else {
            place.mounted.suspend(PATIENCE).unwrap();
            place.mounted.resume();
        }
    }
    stop.store(true, Relaxed);
    for worker in workers {
        let (path, lines) = worker.join().unwrap();
        let expected: String = (0..lines).map(|line| format!("{line}\n")).collect();
        assert_eq!(fs::read_to_string(path).unwrap(), expected);
    }
}

#[test]
fn a_server_that_keeps_its_client_serves_it_again() {
    let Some((place, mut served)) = Place::new(passthrough::Options::default()) else { return };
    let file = File::open(place.guest("file")).unwrap();
    let locked = OpenOptions::new().write(true).open(place.guest("file")).unwrap();
    flock(&locked, FlockOperation::LockExclusive).unwrap();
    place.mounted.suspend(PATIENCE).unwrap();
    let _for_others = served.save();
    served.ends.drain(..).for_each(|end| end.shutdown().unwrap());
    place.mounted.reconnect(served.lanes(), PATIENCE).unwrap();
    assert_eq!(read(&file).unwrap(), "0123456789");
    let of_host = File::open(place.host("file")).unwrap();
    assert!(flock(&of_host, FlockOperation::NonBlockingLockShared).is_err(), "it has the lock still");
    drop(locked);
    wait_for(|| flock(&of_host, FlockOperation::NonBlockingLockShared).ok());
}

#[test]
fn who_waits_for_a_lock_waits_on_with_the_next_server() {
    let Some((place, served)) = Place::new(passthrough::Options::default()) else { return };
    let of_host = File::open(place.host("file")).unwrap();
    flock(&of_host, FlockOperation::LockExclusive).unwrap();
    let file = File::open(place.guest("file")).unwrap();
    let waiter = thread::spawn(move || flock(&file, FlockOperation::LockExclusive).map(|()| file));
    wait_for(|| (served.server.statistics().lock_waits == 1).then_some(()));
    let served = place.go_over(served, || {});
    wait_for(|| (served.server.statistics().lock_waits == 1).then_some(()));
    assert!(!waiter.is_finished());
    flock(&of_host, FlockOperation::Unlock).unwrap();
    let locked = waiter.join().unwrap().unwrap();
    assert!(flock(&of_host, FlockOperation::NonBlockingLockShared).is_err());
    drop(locked);
}

#[test]
fn what_is_another_file_by_now_is_not_taken_for_the_same() {
    let Some((place, served)) = Place::new(passthrough::Options::default()) else { return };
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(place.guest("directory")).unwrap();
    for name in ["replaced", "gone", "directory/below"] {
        fs::write(place.guest(name), "old").unwrap();
    }
    let open = |name| File::open(place.guest(name)).unwrap();
    let (replaced, gone, below) = (open("replaced"), open("gone"), open("directory/below"));
    let unlinked = open("file");
    fs::remove_file(place.guest("file")).unwrap();
    let _served = place.go_over(served, || {
        fs::remove_file(place.host("gone")).unwrap();
        fs::write(place.host("other"), "new").unwrap();
        fs::rename(place.host("other"), place.host("replaced")).unwrap();
        // A link out of the directory in the place of one of its own.
        fs::rename(place.host("directory"), outside.path().join("directory")).unwrap();
        symlink(outside.path().join("directory"), place.host("directory")).unwrap();
    });
    for (lost, name) in [(&replaced, "replaced"), (&gone, "gone"), (&below, "below"), (&unlinked, "file")] {
        read(lost).expect_err(name);
    }
    // By name all is as the host has it.
    assert_eq!(fs::read_to_string(place.guest("replaced")).unwrap(), "new");
    assert!(!place.guest("gone").exists());
    assert!(fs::symlink_metadata(place.guest("directory")).unwrap().is_symlink());
}

#[test]
fn what_was_to_be_told_is_told_by_the_next_server() {
    let Some(_) = directory_of_root() else { return };
    let options = passthrough::Options { watch: Watch::On, ..Default::default() };
    let Some((place, served)) = Place::new(options) else { return };
    let content = || fs::read_to_string(place.guest("file")).unwrap();
    let is_there = |name: &str| place.guest(name).exists();
    assert_eq!((content().as_str(), is_there("new")), ("0123456789", false));
    let served = place.go_over(served, || {
        fs::write(place.host("file"), "changed").unwrap();
        fs::write(place.host("new"), "").unwrap();
    });
    let begun = Instant::now();
    wait_for(|| (content() == "changed" && is_there("new")).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(10), "less than it is kept: {:?}", begun.elapsed());
    // And what it has told itself.
    fs::write(place.host("file"), "again").unwrap();
    wait_for(|| (content() == "again").then_some(()));
    drop(served);
}

#[test]
fn a_server_that_owes_an_answer_is_not_left() {
    let Some(guest) = directory() else { return };
    let (asked, was_asked) = mpsc::channel();
    let stream = serve(move |request| {
        (request.opcode == support::LOOKUP).then(|| {
            asked.send(()).unwrap();
            Answer::Silence
        })
    });
    let mounted = Client::mount(guest.path(), vec![stream], &Options::default()).unwrap();
    let path = guest.path().join("hello");
    let waiting = thread::spawn(move || fs::metadata(path));
    was_asked.recv().unwrap();
    let error = mounted.suspend(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, ClientError::Busy), "{error}");
    // Whoever waits for it hears at once that nobody wants it any more.
    thread::scope(|scope| {
        let suspending = scope.spawn(|| mounted.suspend(PATIENCE));
        wait_for(|| {
            mounted.resume();
            suspending.is_finished().then_some(())
        });
        let error = suspending.join().unwrap().unwrap_err();
        assert!(matches!(error, ClientError::NotSuspended), "{error}");
    });
    // It is as before: others are answered.
    fs::metadata(guest.path()).unwrap();
    mounted.unmount().unwrap();
    waiting.join().unwrap().unwrap_err();
}

#[test]
fn a_suspended_mount_ends_as_any() {
    let Some((place, served)) = Place::new(passthrough::Options::default()) else { return };
    place.mounted.suspend(PATIENCE).unwrap();
    served.hang_up();
    let path = place.guest("file");
    let (begins, begun) = mpsc::channel();
    let waiting = thread::spawn(move || {
        begins.send(()).unwrap();
        fs::read(path)
    });
    begun.recv().unwrap();
    place.mounted.unmount().unwrap();
    waiting.join().unwrap().ok();
}
