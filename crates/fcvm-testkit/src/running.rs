//! A command that runs, and how it ended.

use std::{
    fs,
    os::{fd::OwnedFd, unix::process::ExitStatusExt as _},
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process, kill_process_group,
        pidfd_open, waitid,
    },
};

use crate::{collect::Collector, engine};

/// Longest time for one command. A safety net: nothing comes near it unless it hangs.
const DEADLINE: Duration = Duration::from_secs(400);

/// A command that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Running {
    child: Child,
    description: String,
    stdout: Collector,
    stderr: Collector,
    begun: Instant,
}

/// How a command ended.
#[derive(Debug)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
    /// From the start to the first byte on standard output.
    pub to_first_output: Option<Duration>,
    description: String,
}

impl Running {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let begun = Instant::now();
        let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
        let program = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy();
        let description = format!("{program} {}", arguments.collect::<Vec<_>>().join(" "));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{description}`: {error}"));
        let stdout = child.stdout.take().map_or_else(Collector::ended, Collector::read);
        let stderr = child.stderr.take().map_or_else(Collector::ended, Collector::read);
        Self { child, description, stdout, stderr, begun }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The end of its standard input to write to, where it was piped.
    pub fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().expect("the command's input was piped, and is taken once")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has written `text` to standard output.
    pub fn wait_for_stdout(&self, text: &str) {
        self.wait_for(&self.stdout, text, "standard output");
    }

    /// Waits for a line of standard output, the first is 0; the line without its end.
    #[must_use]
    pub fn wait_for_stdout_line(&self, index: usize) -> String {
        if !self.stdout.wait_for_lines(index + 1, self.deadline()) {
            self.fail(&format!("line {index} never came on its standard output"));
        }
        self.stdout_so_far().lines().nth(index).unwrap_or_default().to_owned()
    }

    /// What it has written to standard output.
    #[must_use]
    pub fn stdout_so_far(&self) -> String {
        self.stdout.text()
    }

    /// Waits until it has written `text` to standard error.
    pub fn wait_for_stderr(&self, text: &str) {
        self.wait_for(&self.stderr, text, "standard error");
    }

    fn wait_for(&self, stream: &Collector, text: &str, what: &str) {
        if !stream.wait_for(text, self.deadline()) {
            self.fail(&format!("`{text}` never came on its {what}"));
        }
    }

    /// A line of `/proc/PID/status` that has a number of kB, in bytes.
    #[must_use]
    pub fn memory(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes = line.and_then(|value| value.trim().strip_suffix(" kB")).unwrap();
        kilobytes.trim().parse::<u64>().unwrap() << 10
    }

    /// Waits for its end and the end of its outputs.
    #[must_use]
    pub fn wait(mut self) -> Output {
        if !wait_for_exit(Pid::from_child(&self.child), self.deadline()) {
            self.fail("it does not end");
        }
        let status = self.child.wait().unwrap();
        let took = self.begun.elapsed();
        for stream in [&self.stdout, &self.stderr] {
            if !stream.wait_for_end(self.deadline()) {
                self.fail("it ended, and something else holds its output");
            }
        }
        Output {
            status,
            stdout: self.stdout.bytes(),
            stderr: self.stderr.text(),
            took,
            to_first_output: self.stdout.first().map(|first| first.duration_since(self.begun)),
            description: self.description.clone(),
        }
    }

    /// Kills it, and waits for its end.
    #[must_use]
    pub fn kill(self) -> Output {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Stops all of its threads: it starts no process from now on.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), options).unwrap();
    }

    /// Waits until it stands still, stopped by itself.
    pub fn wait_until_stopped(&self) {
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let status = waitid(WaitId::Pid(Pid::from_child(&self.child)), options).unwrap();
        if !status.as_ref().is_some_and(WaitIdStatus::stopped) {
            // What it had to say may be on its way.
            for stream in [&self.stdout, &self.stderr] {
                stream.wait_for_end(self.deadline());
            }
            self.fail(&format!("it ended before it stopped: {status:?}"));
        }
    }

    fn deadline(&self) -> Instant {
        self.begun + DEADLINE * engine::slowness()
    }

    fn fail(&self, why: &str) -> ! {
        let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
        let stdout: String = stdout.chars().take(4096).collect();
        panic!("`{}`: {why}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", self.description);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // The group has it alone: what it starts gets groups of its own, and dies with it.
            if let Err(error) = kill_process_group(Pid::from_child(&self.child), Signal::KILL) {
                assert_eq!(error, Errno::SRCH);
            }
            self.child.wait().unwrap();
        }
    }
}

/// Waits for a process to end; `false` where it does not in time.
pub(crate) fn wait_for_exit(pid: Pid, deadline: Instant) -> bool {
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return true,
        pidfd => pidfd.unwrap(),
    };
    wait_for_end(&pidfd, deadline)
}

/// Waits for the end of the process of a pidfd; false where it does not come.
pub(crate) fn wait_for_end(pidfd: &OwnedFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap();
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&timeout)) {
            Err(Errno::INTR) => {}
            ready => return ready.unwrap() == 1,
        }
    }
}

impl Output {
    /// Standard output as text.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The exit code, or 128 and the number of the signal that killed it, as a shell tells it.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Insists on an exit code; that of a signal does not count.
    pub fn assert_code(&self, code: i32) -> &Self {
        let stdout: String = self.stdout().chars().take(4096).collect();
        assert!(
            self.status.code() == Some(code),
            "`{}` ended with {}, not {code}\n--- stdout\n{stdout}\n--- stderr\n{}",
            self.description,
            self.status,
            self.stderr
        );
        self
    }

    /// Insists on success; standard output without the last line break.
    #[must_use]
    pub fn ok(&self) -> String {
        self.assert_code(0);
        self.stdout().trim_end_matches('\n').to_owned()
    }

    /// Insists on success and on what came on standard output.
    pub fn assert_stdout(&self, expected: &str) {
        assert_eq!(self.ok(), expected, "standard error: {}", self.stderr);
    }
}
