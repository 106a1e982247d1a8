//! A real Firecracker, and a guest that boots in a tenth of a second.
//!
//! Neither is in a package: `$FCVM_FIRECRACKER` or `PATH` has the program, and a directory
//! `shared/pvm` beside the project (or `$FCVM_TEST_PVM`) the guest's source, `tinyguest`. The guest
//! says `TINY BOOT`, fills memory with a pattern, and answers each byte of input with a line: `p` is
//! a ping, `w` writes the pattern, `r` reads it and tells how many pages are bad, `q` resets.

use std::{
    cell::Cell,
    env, fs,
    io::Write as _,
    os::unix::{net::UnixStream, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{ChildStdin, Command, Stdio},
    sync::OnceLock,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify::{self, CreateFlags, WatchFlags},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tempfile::TempDir;

use crate::{Output, Running, needs_programs, skip};

const MILLISECOND: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// A directory for the files of Firecracker processes. To be dropped after them.
#[derive(Debug)]
pub struct FirecrackerEnv {
    program: PathBuf,
    directory: TempDir,
    started: Cell<u32>,
}

/// A Firecracker that runs and listens. Dropped, it is killed.
#[derive(Debug)]
pub struct Firecracker {
    running: Running,
    stdin: ChildStdin,
    socket: PathBuf,
    /// Lines of the guest that were taken.
    lines: usize,
}

impl FirecrackerEnv {
    /// An empty directory. Nothing, with a word why, where no Firecracker can run here.
    #[must_use]
    pub fn new() -> Option<Self> {
        let program = match find_program() {
            Ok(program) => program,
            Err(reason) => {
                skip(reason);
                return None;
            }
        };
        // Short: it has sockets in it.
        let directory = tempfile::Builder::new().prefix("fcvm-").tempdir_in("/tmp").unwrap();
        Some(Self { program, directory, started: Cell::new(0) })
    }

    /// A directory with the guest in it, [`FirecrackerEnv::guest`].
    #[must_use]
    pub fn with_guest() -> Option<Self> {
        let env = Self::new()?;
        let Some(sources) = find_guest() else {
            skip("no guest: no tinyguest in FCVM_TEST_PVM, or in shared/pvm beside the project");
            return None;
        };
        if !needs_programs(&["gcc", "ld"]) {
            return None;
        }
        static GUEST: OnceLock<Vec<u8>> = OnceLock::new();
        fs::write(env.guest(), GUEST.get_or_init(|| build(&sources))).unwrap();
        Some(env)
    }

    /// Firecracker's program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The guest, a kernel to Firecracker. Wants 64 MiB and the console that Firecracker gives by itself.
    #[must_use]
    pub fn guest(&self) -> PathBuf {
        self.path("guest.elf")
    }

    /// A path in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file; its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Runs `firecracker ARGUMENTS…` to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null());
        self.spawn(command).wait()
    }

    /// Starts Firecracker, and waits until it listens.
    #[must_use]
    pub fn start(&self) -> Firecracker {
        self.launch(Command::new(&self.program))
    }

    /// The same in a network namespace of its own, which a shell script has prepared. Nothing, with a
    /// word why, where there are none for this user.
    #[must_use]
    pub fn start_in_namespace(&self, script: &str) -> Option<Firecracker> {
        if !needs_programs(&["unshare", "ip"]) {
            return None;
        }
        let tried =
            Command::new("unshare").args(["-rn", "ip", "tuntap", "add", "probe", "mode", "tap"]).output();
        let tried = tried.unwrap();
        if !tried.status.success() {
            skip(format!("no taps in a namespace: {}", String::from_utf8_lossy(&tried.stderr)));
            return None;
        }
        let mut command = Command::new("unshare");
        command.args(["-rn", "sh", "-ec", &format!("{script}\nexec \"$0\" \"$@\"")]).arg(&self.program);
        Some(self.launch(command))
    }

    fn launch(&self, mut command: Command) -> Firecracker {
        self.started.set(self.started.get() + 1);
        let socket = self.path(&format!("{}.sock", self.started.get()));
        command.arg("--api-sock").arg(&socket);
        // Else it is between the guest's lines.
        command.arg("--log-path").arg(self.path(&format!("{}.log", self.started.get())));
        command.stdin(Stdio::piped());
        let changes = inotify::init(CreateFlags::CLOEXEC).unwrap();
        inotify::add_watch(&changes, self.directory.path(), WatchFlags::CREATE).unwrap();
        let mut running = self.spawn(command);
        let stdin = running.stdin();
        let end = pidfd_open(Pid::from_raw(running.pid()).unwrap(), PidfdFlags::empty()).unwrap();
        while !socket.exists() {
            let mut ends = [PollFd::new(&changes, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
            poll(&mut ends, None).unwrap();
            if !ends[1].revents().is_empty() {
                let output = running.wait();
                panic!("Firecracker ended with {}\n{}{}", output.status, output.stdout(), output.stderr);
            }
            rustix::io::read(&changes, &mut [0; 4096]).unwrap();
        }
        // It has a name before it listens, for some microseconds.
        while UnixStream::connect(&socket).is_err() {
            assert_eq!(poll(&mut [PollFd::new(&end, PollFlags::IN)], Some(&MILLISECOND)), Ok(0));
        }
        Firecracker { running, stdin, socket, lines: 0 }
    }

    fn spawn(&self, mut command: Command) -> Running {
        command
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .current_dir(self.directory.path())
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Running::spawn(command)
    }
}

impl Firecracker {
    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.running.pid()
    }

    /// Waits for the guest's next line.
    #[must_use]
    pub fn line(&mut self) -> String {
        self.lines += 1;
        self.running.wait_for_stdout_line(self.lines - 1)
    }

    /// Gives the guest input.
    pub fn say(&mut self, input: &str) {
        self.stdin.write_all(input.as_bytes()).unwrap();
    }

    /// Gives the guest input, and waits for its next line.
    #[must_use]
    pub fn ask(&mut self, input: &str) -> String {
        self.say(input);
        self.line()
    }

    /// How many lines the guest has written so far.
    #[must_use]
    pub fn lines_so_far(&self) -> usize {
        self.running.stdout_so_far().lines().count()
    }

    /// Waits for its end.
    #[must_use]
    pub fn wait(self) -> Output {
        self.running.wait()
    }

    /// Kills it.
    pub fn kill(self) {
        drop(self.running);
    }
}

/// The program, or why there is none.
pub(crate) fn find_program() -> Result<PathBuf, String> {
    let program = match env::var_os("FCVM_FIRECRACKER").map(PathBuf::from) {
        Some(program) => {
            assert!(program.is_file(), "FCVM_FIRECRACKER names no file: {}", program.display());
            program
        }
        None => {
            let path = env::var_os("PATH").unwrap_or_default();
            let mut programs = env::split_paths(&path).map(|directory| directory.join("firecracker"));
            programs.find(|program| program.is_file()).ok_or("no firecracker binary: set FCVM_FIRECRACKER")?
        }
    };
    let kvm = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    kvm.map(|_| program).map_err(|error| format!("no /dev/kvm: {error}"))
}

/// The directory with what runs on any KVM.
pub(crate) fn find_shared() -> Option<PathBuf> {
    let candidates = match env::var_os("FCVM_TEST_PVM") {
        Some(named) => vec![PathBuf::from(named)],
        None => {
            let parents = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
            parents.map(|parent| parent.join("shared/pvm")).collect()
        }
    };
    candidates.into_iter().find(|pvm| pvm.is_dir())
}

/// The directory of the guest's source.
fn find_guest() -> Option<PathBuf> {
    find_shared().map(|pvm| pvm.join("tinyguest")).filter(|guest| guest.is_dir())
}

fn build(sources: &Path) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(sources).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
    }
    let built = Command::new("sh").arg(directory.path().join("build.sh")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    fs::read(directory.path().join("tiny.elf")).unwrap()
}
