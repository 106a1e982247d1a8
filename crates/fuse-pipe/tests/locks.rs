//! Locks through mounts: what one has excludes the other, and the host.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]
#![expect(dead_code, reason = "the other tests need more of the support")]

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{net::UnixStream, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use fuse_pipe::{
    client::{Client, Mounted, Options},
    passthrough::{self, Passthrough},
    server::Server,
    stream::Stream,
};
use rustix::{
    fs::{FlockOperation, fcntl_lock, flock},
    io::Errno,
    process::{Pid, Signal, kill_process},
};

mod support;

use support::directory;

/// A mount of a directory, with a server of its own.
struct Mount {
    guest: tempfile::TempDir,
    mounted: Mounted,
    server: Vec<Stream>,
}

impl Mount {
    fn new(host: &Path) -> Option<Self> {
        let guest = directory()?;
        let server = Server::new(Passthrough::new(host, passthrough::Options::default()).unwrap());
        let (mut ends, mut streams) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let theirs = Stream::new(theirs).unwrap();
            ends.push(theirs.try_clone().unwrap());
            let server = server.clone();
            thread::spawn(move || server.serve(theirs));
            streams.push(Stream::new(ours).unwrap());
        }
        let mounted = Client::mount(guest.path(), streams, &Options::default()).unwrap();
        Some(Self { guest, mounted, server: ends })
    }

    fn file(&self) -> PathBuf {
        self.guest.path().join("file")
    }
}

fn two() -> Option<(tempfile::TempDir, Mount, Mount)> {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "content").unwrap();
    let (first, second) = (Mount::new(host.path())?, Mount::new(host.path())?);
    Some((host, first, second))
}

/// How a program locks a file.
#[derive(Debug, Clone, Copy)]
enum By {
    Fcntl,
    Flock,
}

impl By {
    const BOTH: [Self; 2] = [Self::Fcntl, Self::Flock];

    fn lock(self, file: &File, operation: FlockOperation) -> Result<(), Errno> {
        match self {
            Self::Fcntl => fcntl_lock(file, operation),
            Self::Flock => flock(file, operation),
        }
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// Another process, which is what has fcntl(2)'s locks.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What a child does instead of a test: opens the file, then whatever lines it is told to.
#[test]
fn program() {
    let Some(path) = std::env::var_os("LOCKS_PROGRAM") else { return };
    let file = open(Path::new(&path));
    let mut closed = None;
    // With a handler a signal ends a call.
    support::sys::handle_usr1();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let (by, what) = line.split_once(' ').unwrap();
        let by = if by == "Fcntl" { By::Fcntl } else { By::Flock };
        println!("?begin");
        let done = match what {
            "try" => by.lock(&file, FlockOperation::NonBlockingLockExclusive),
            "share" => by.lock(&file, FlockOperation::NonBlockingLockShared),
            "wait" => by.lock(&file, FlockOperation::LockExclusive),
            "unlock" => by.lock(&file, FlockOperation::Unlock),
            // Another of its descriptors: POSIX gives up the locks then.
            "close" => {
                drop(closed.replace(open(Path::new(&path))));
                drop(closed.take());
                Ok(())
            }
            _ => unreachable!(),
        };
        println!("!{}", done.map_or_else(|errno| errno.raw_os_error(), |()| 0));
    }
}

impl Program {
    fn new(path: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "program", "--nocapture"])
            .env("LOCKS_PROGRAM", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, input, output }
    }

    fn begin(&mut self, by: By, what: &str) {
        writeln!(self.input, "{by:?} {what}").unwrap();
        assert_eq!(self.line('?'), "begin");
    }

    fn ask(&mut self, by: By, what: &str) -> Result<(), Errno> {
        self.begin(by, what);
        self.end()
    }

    fn end(&mut self) -> Result<(), Errno> {
        match self.line('!').parse().unwrap() {
            0 => Ok(()),
            errno => Err(Errno::from_raw_os_error(errno)),
        }
    }

    /// The next line of that kind: others are the test harness's.
    fn line(&mut self, kind: char) -> String {
        loop {
            let mut line = String::new();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "the program ended");
            if let Some((_, line)) = line.trim().split_once(kind) {
                return line.to_owned();
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Returns once a thread of it is in a call that may wait for a lock: its number.
    fn is_waiting(&self) -> i32 {
        support::wait_for(|| {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
            let waiting = tasks.flatten().find(|task| {
                let call = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
                let number = call.split(' ').next().and_then(|number| number.parse().ok());
                matches!(number, Some(libc::SYS_fcntl | libc::SYS_flock))
            });
            waiting.map(|task| task.file_name().to_str().unwrap().parse().unwrap())
        })
    }

    fn finish(self) {
        let Self { mut child, input, mut output } = self;
        drop(input);
        output.read_to_string(&mut String::new()).unwrap();
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn two_mounts_and_the_host_exclude_each_other() {
    let Some((host, first, second)) = two() else { return };
    let paths = [first.file(), second.file(), host.path().join("file")];
    for by in By::BOTH {
        for (index, path) in paths.iter().enumerate() {
            let mut holder = Program::new(path);
            let mut others: Vec<_> = paths
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index)
                .map(|(_, path)| Program::new(path))
                .collect();
            // Another process by the same mount, too.
            others.push(Program::new(path));
            holder.ask(by, "try").unwrap();
            for other in &mut others {
                assert_eq!(other.ask(by, "try"), Err(Errno::AGAIN), "{by:?} {index}");
                assert_eq!(other.ask(by, "share"), Err(Errno::AGAIN), "{by:?} {index}");
            }
            holder.ask(by, "share").unwrap();
            for other in &mut others {
                other.ask(by, "share").unwrap();
            }
            assert_eq!(holder.ask(by, "try"), Err(Errno::AGAIN), "{by:?} {index}");
            for mut other in others {
                // The kernel tells the server of a file's end, which is that of its flock(2) locks, when it
                // suits; close(2) does not wait for that.
                other.ask(by, "unlock").unwrap();
                other.finish();
            }
            holder.ask(by, "try").unwrap();
            holder.finish();
        }
    }
}

#[test]
fn a_process_that_closes_the_file_has_no_locks_of_it() {
    let Some((_host, first, second)) = two() else { return };
    let (mut holder, mut other) = (Program::new(&first.file()), Program::new(&second.file()));
    for by in By::BOTH {
        holder.ask(by, "try").unwrap();
        holder.ask(by, "close").unwrap();
        // Of flock(2) it was another open file.
        let expected = match by {
            By::Fcntl => Ok(()),
            By::Flock => Err(Errno::AGAIN),
        };
        assert_eq!(other.ask(by, "try"), expected, "{by:?}");
        other.ask(by, "unlock").unwrap();
        holder.ask(by, "unlock").unwrap();
        // Nor has one that was killed.
        let mut killed = Program::new(&first.file());
        killed.ask(by, "try").unwrap();
        kill_process(killed.pid(), Signal::KILL).unwrap();
        killed.child.wait().unwrap();
        other.ask(by, "wait").unwrap();
        other.ask(by, "unlock").unwrap();
    }
    holder.finish();
    other.finish();
}

#[test]
fn who_waits_gets_the_lock_when_it_is_free() {
    let Some((host, first, second)) = two() else { return };
    for by in By::BOTH {
        for path in [second.file(), host.path().join("file")] {
            let (mut holder, mut waiter) = (Program::new(&path), Program::new(&first.file()));
            holder.ask(by, "try").unwrap();
            waiter.begin(by, "wait");
            waiter.is_waiting();
            // More of them than a lane has workers hold up nobody.
            let mut crowd: Vec<_> = (0..20).map(|_| Program::new(&first.file())).collect();
            for one in &mut crowd {
                one.begin(by, "wait");
                one.is_waiting();
            }
            assert_eq!(fs::read(first.file()).unwrap(), b"content");
            holder.ask(by, "unlock").unwrap();
            crowd.push(waiter);
            thread::scope(|scope| {
                for mut one in crowd {
                    scope.spawn(move || {
                        one.end().unwrap();
                        one.finish();
                    });
                }
            });
            holder.ask(by, "wait").unwrap();
            holder.finish();
        }
    }
}

#[test]
fn an_interrupted_wait_ends_and_the_lock_is_not_taken_later() {
    let Some((_host, first, second)) = two() else { return };
    for by in By::BOTH {
        let (mut holder, mut waiter) = (Program::new(&second.file()), Program::new(&first.file()));
        for _ in 0..20 {
            holder.ask(by, "try").unwrap();
            waiter.begin(by, "wait");
            support::sys::send_usr1(waiter.child.id(), waiter.is_waiting());
            assert_eq!(waiter.end(), Err(Errno::INTR), "{by:?}");
            holder.ask(by, "unlock").unwrap();
            holder.ask(by, "try").unwrap();
            holder.ask(by, "unlock").unwrap();
        }
        // One that is killed leaves nothing, either.
        holder.ask(by, "try").unwrap();
        waiter.begin(by, "wait");
        waiter.is_waiting();
        kill_process(waiter.pid(), Signal::KILL).unwrap();
        assert_eq!(waiter.child.wait().unwrap().signal(), Some(libc::SIGKILL));
        holder.ask(by, "unlock").unwrap();
        holder.ask(by, "try").unwrap();
        holder.finish();
    }
}

#[test]
fn locks_and_waits_end_with_their_client() {
    for by in By::BOTH {
        let Some((host, first, second)) = two() else { return };
        let (mut holder, mut waiter) = (Program::new(&second.file()), Program::new(&first.file()));
        holder.ask(by, "try").unwrap();
        waiter.begin(by, "wait");
        waiter.is_waiting();
        // The server of the waiter goes.
        for lane in &first.server {
            lane.shutdown().unwrap();
        }
        assert!(matches!(waiter.end(), Err(Errno::CONNABORTED | Errno::NOTCONN | Errno::INTR)));
        waiter.finish();
        // The holder's client goes: its lock does, too.
        let mut local = Program::new(&host.path().join("file"));
        local.begin(by, "wait");
        local.is_waiting();
        second.mounted.unmount().unwrap();
        local.end().unwrap();
        local.finish();
        kill_process(holder.pid(), Signal::KILL).unwrap();
        holder.child.wait().unwrap();
    }
}
