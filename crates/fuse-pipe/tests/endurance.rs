//! What holds over time: mounts that come and go, servers that die, and what all that costs. The server is a
//! process of its own wherever it is measured or killed: this test's program, run again.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests; figures are printed"
)]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use fcvm_testkit::needs_root;
use fuse_pipe::{
    client::{Audience, Client, Mounted, Options},
    passthrough::{self, Cache, Passthrough},
    server::Server,
    stream::Stream,
};
use rustix::mount::{UnmountFlags, unmount};

#[path = "support/pipe.rs"]
mod pipe;

use pipe::Pipe;

const LANES: usize = 2;
/// Where this program is to serve instead of testing: `DIRECTORY:SOCKET`.
const SERVE: &str = "FUSE_PIPE_TEST_SERVE";
/// glibc's: how many arenas its allocator may make.
const ONE_ARENA: &str = "MALLOC_ARENA_MAX";

/// Not a test by itself: the server's process.
#[test]
fn serves_where_it_is_told_to() {
    let Ok(told) = env::var(SERVE) else { return };
    let (directory, socket) = told.split_once(':').unwrap();
    let options = passthrough::Options { cache: Cache::Auto, ..Default::default() };
    let server = Server::new(Passthrough::new(Path::new(directory), options).unwrap());
    let listener = UnixListener::bind(socket).unwrap();
    println!("\nready");
    thread::scope(|scope| {
        for _ in 0..LANES {
            let stream = Stream::new(listener.accept().unwrap().0).unwrap();
            scope.spawn(|| server.serve(stream));
        }
    });
}

/// A directory through a server in another process.
struct Remote {
    host: tempfile::TempDir,
    guest: tempfile::TempDir,
    mounted: Option<Mounted>,
    server: Child,
}

impl Remote {
    fn new() -> Self {
        let (host, guest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let own = tempfile::tempdir().unwrap();
        let socket = own.path().join("socket");
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "serves_where_it_is_told_to", "--nocapture"]);
        command.env(SERVE, format!("{}:{}", host.path().display(), socket.display()));
        let mut server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap() == "ready"));
        // Whatever it says later finds a reader.
        thread::spawn(move || lines.count());
        let connect = |_| Stream::new(UnixStream::connect(&socket).unwrap()).unwrap();
        let options = Options { audience: Audience::Everyone, ..Options::default() };
        let mounted = Client::mount(guest.path(), (0..LANES).map(connect).collect(), &options).unwrap();
        Self { host, guest, mounted: Some(mounted), server }
    }

    fn guest(&self, name: &str) -> PathBuf {
        self.guest.path().join(name)
    }

    /// The number behind `field` of the server's `/proc/PID/status`.
    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// How many files of its directory the server has open. What else it has comes and goes with its lanes.
    fn open_files(&self) -> usize {
        let all = fs::read_dir(format!("/proc/{}/fd", self.server.id())).unwrap();
        // One may be closed meanwhile.
        let targets = all.filter_map(|descriptor| fs::read_link(descriptor.unwrap().path()).ok());
        targets.filter(|target| target.starts_with(self.host.path())).count()
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            mounted.unmount().unwrap();
        }
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

/// What a mount may leave behind in this process.
fn traces() -> (usize, usize) {
    let count = |of: &str| fs::read_dir(of).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

/// Waits until there is no more than before: threads that have ended are listed for a moment.
fn settle(before: (usize, usize)) {
    let start = Instant::now();
    while traces() != before {
        assert!(start.elapsed() < Duration::from_secs(10), "{:?} and not {before:?}", traces());
        thread::yield_now();
    }
}

#[test]
fn root_slow_five_hundred_mounts_leave_nothing() {
    if !needs_root() {
        return;
    }
    // glibc gives threads arenas of their own, and keeps in each what was freed there. How many there come to be
    // and how full they once were is chance (20 to 31 MiB); in one, what is not freed is what grows.
    if env::var_os(ONE_ARENA).is_none() {
        let mut again = Command::new(env::current_exe().unwrap());
        again.args(["--exact", "root_slow_five_hundred_mounts_leave_nothing", "--nocapture"]);
        assert!(again.env(ONE_ARENA, "1").status().unwrap().success());
        return;
    }
    let resident = || -> usize {
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = pages.split(' ').nth(1).unwrap().parse().unwrap();
        (pages * rustix::param::page_size()) >> 10
    };
    let (before, start, mut grown) = (traces(), Instant::now(), Vec::new());
    for round in 0..500 {
        let pipe = Pipe::new([Cache::Auto, Cache::Always, Cache::Never, Cache::Exclusive][round % 4]);
        fs::write(pipe.guest("file"), vec![1; 100_000]).unwrap();
        assert_eq!(fs::read(pipe.guest("file")).unwrap().len(), 100_000);
        pipe.mounted.unmount().unwrap();
        settle(before);
        if round % 100 == 99 {
            grown.push(resident());
        }
    }
    println!("500 mounts in {:?}; KiB of memory after each hundred: {grown:?}", start.elapsed());
    // What is free at the heap's end comes and goes with the buffers of requests, 1 MiB each.
    assert!(grown[4].saturating_sub(grown[0]) <= 2048, "{grown:?}");
}

#[test]
fn root_slow_unmounting_while_all_is_in_use_hangs_nobody() {
    if !needs_root() {
        return;
    }
    let before = traces();
    for round in 0..60 {
        let pipe = Pipe::new(Cache::Auto);
        fs::write(pipe.guest("file"), vec![1; 1 << 20]).unwrap();
        let (barrier, stop) = (Barrier::new(5), AtomicBool::new(false));
        let root = pipe.guest("");
        thread::scope(|scope| {
            for user in 0..4 {
                let (barrier, stop, root) = (&barrier, &stop, &root);
                scope.spawn(move || {
                    let file = fs::File::open(root.join("file")).unwrap();
                    barrier.wait();
                    while !stop.load(Ordering::Relaxed) {
                        // Errors are what is to come.
                        drop((fs::read(root.join("file")), fs::write(root.join(format!("new{user}")), "x")));
                        drop(file.metadata());
                    }
                });
            }
            barrier.wait();
            match round % 3 {
                // The other program first, or both at once.
                0 => unmount(&root, UnmountFlags::DETACH).unwrap(),
                1 => drop(scope.spawn(|| unmount(&root, UnmountFlags::FORCE | UnmountFlags::DETACH))),
                _ => {}
            }
            // Whoever was second finds nothing to unmount.
            if let Err(error) = pipe.mounted.unmount() {
                assert_eq!(round % 3, 1, "{error:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
        settle(before);
    }
}

#[test]
fn root_slow_a_server_killed_at_any_point_fails_requests_and_hangs_nobody() {
    if !needs_root() {
        return;
    }
    let (before, mut longest) = (traces(), Duration::ZERO);
    // After so many operations; the seed is the round.
    for after in (0..30).map(|round: usize| round.pow(2) * 7 % 997) {
        let mut remote = Remote::new();
        let (done, root) = (AtomicUsize::new(0), remote.guest(""));
        thread::scope(|scope| {
            let work = |user: usize| {
                let directory = root.join(format!("directory{user}"));
                for number in 0.. {
                    let file = directory.join(number.to_string());
                    let result = fs::create_dir_all(&directory)
                        .and_then(|()| fs::write(&file, vec![7; 5000 * user]))
                        .and_then(|()| fs::read(&file))
                        .and_then(|_| fs::File::open(&file)?.sync_all())
                        .and_then(|()| fs::read_dir(&root).map(Iterator::count));
                    if result.is_err() {
                        return;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            };
            let users: Vec<_> = (0..4).map(|user| scope.spawn(move || work(user))).collect();
            while done.load(Ordering::Relaxed) < after {
                thread::yield_now();
            }
            remote.server.kill().unwrap();
            let killed = Instant::now();
            users.into_iter().for_each(|user| user.join().unwrap());
            longest = longest.max(killed.elapsed());
        });
        let ended = remote.mounted.as_ref().unwrap().wait();
        assert!(matches!(ended, fuse_pipe::client::Ended::Closed { .. }), "{ended:?}");
        assert!(fs::metadata(remote.guest("file")).is_err());
        let guest = remote.guest("");
        drop(remote);
        assert!(!guest.exists(), "the mount is gone, and its place with it");
    }
    println!("all users had errors within {longest:?}");
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    settle(before);
}

#[test]
fn root_slow_ten_thousand_files_measured_alone() {
    if !needs_root() {
        return;
    }
    let remote = Remote::new();
    let root = remote.open_files();
    for number in 0..10_000 {
        fs::File::create(remote.host.path().join(format!("file{number}"))).unwrap();
    }
    for number in 0..10_000 {
        fs::metadata(remote.guest(&format!("file{number}"))).unwrap();
    }
    let (resident, threads) = (remote.status("VmRSS:"), remote.status("Threads:"));
    assert_eq!(remote.open_files(), root + 10_000, "they are known");
    println!("a server with 10,000 known files: {resident} KiB, {threads} threads");
    assert!(resident <= 30 << 10, "{resident} KiB");

    // The kernel forgets all at once.
    let start = Instant::now();
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    while remote.open_files() > root {
        assert!(start.elapsed() < Duration::from_secs(10), "{} open files", remote.open_files());
        thread::yield_now();
    }
    println!("10,000 files were forgotten in {:?}, with the kernel's own part", start.elapsed());

    idle(&remote);
}

/// No thread of either side uses the CPU while nobody uses the mount.
fn idle(remote: &Remote) {
    // User and system time, in clock ticks, of all threads of a process whose names begin so.
    let used = |process: &str, name: &str| -> u64 {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let times = tasks.filter_map(|task| {
            let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
            let (before, after) = stat.rsplit_once(')').unwrap();
            let fields: Vec<_> = after.split_whitespace().collect();
            let ticks = |at: usize| fields[at].parse::<u64>().unwrap();
            before.split_once('(').unwrap().1.starts_with(name).then(|| ticks(11) + ticks(12))
        });
        times.sum()
    };
    let server = remote.server.id().to_string();
    // What follows on the last requests comes to its end before.
    drop(fs::metadata(remote.guest("none")));
    let both = || (used("self", "fuse"), used(&server, ""));
    let (before, start) = (both(), Instant::now());
    // That nothing happens cannot be waited for otherwise.
    thread::sleep(Duration::from_secs(3));
    let after = both();
    println!("{:?} idle: {} and {} ticks", start.elapsed(), after.0 - before.0, after.1 - before.1);
    assert_eq!(before, after);
    std::io::stdout().flush().unwrap();
}
