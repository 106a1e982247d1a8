//! A terminal with a shell in it, as a user sees it: tmux.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::termios::tcgetwinsize;

use crate::{TestEnv, leaks, needs_programs};

/// Longest time for something to appear. A safety net.
const DEADLINE: Duration = Duration::from_secs(120);
/// What the shell shows when it is ready.
const PROMPT: &str = "ready>";

/// A terminal whose shell has the environment of a [`TestEnv`], `$FCVM` among it.
#[derive(Debug)]
pub struct Screen {
    socket: PathBuf,
    /// A client that is told whenever something was written.
    watcher: Child,
    changes: Receiver<()>,
    /// tmux itself and the shell.
    processes: Vec<OwnedFd>,
}

impl Screen {
    /// A terminal of that size. Nothing, with a word why, where there is no tmux.
    #[must_use]
    pub fn new(env: &TestEnv, columns: u16, rows: u16) -> Option<Self> {
        if !needs_programs(&["tmux"]) {
            return None;
        }
        let socket = env.sockets().join("tmux");
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let started = env
            .program_in_env("tmux")
            .args(["-f", "/dev/null", "-S"])
            .arg(&socket)
            .args(["new-session", "-d", "-x", &columns, "-y", &rows, "sh"])
            .env("FCVM", env.program())
            .env("ENV", "")
            .env("LC_ALL", "C.UTF-8")
            .run();
        started.assert_code(0);
        let mut watcher = Command::new("tmux")
            .arg("-S")
            .arg(&socket)
            .args(["-C", "attach"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, changes) = channel();
        let lines = BufReader::new(watcher.stdout.take().unwrap());
        thread::spawn(move || {
            for line in lines.split(b'\n').map_while(Result::ok) {
                if line.starts_with(b"%") && sender.send(()).is_err() {
                    return;
                }
            }
        });
        let mut screen = Self { socket, watcher, changes, processes: Vec::new() };
        let pids = screen.tmux(&["display-message", "-p", "#{pid} #{pane_pid}"]);
        screen.processes =
            pids.split_whitespace().filter_map(|pid| leaks::open(pid.parse().unwrap())).collect();
        screen.resize(columns.parse().unwrap(), rows.parse().unwrap());
        screen.line(&format!("PS1='{PROMPT}'"));
        screen.wait_for_prompt();
        Some(screen)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").arg("-S").arg(&self.socket).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What is on the screen, a line each.
    #[must_use]
    pub fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Types a line.
    pub fn line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.key("Enter");
    }

    /// Presses a key, by tmux's name of it: `C-c`.
    pub fn key(&self, name: &str) {
        self.tmux(&["send-keys", name]);
    }

    /// Gives it another size. It has it on return: tmux itself tells the terminal a while later.
    pub fn resize(&self, columns: u16, rows: u16) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
        let terminal = File::open(self.tmux(&["display-message", "-p", "#{pane_tty}"]).trim()).unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let size = tcgetwinsize(&terminal).unwrap();
            if (size.ws_col, size.ws_row) == (columns, rows) {
                return;
            }
            assert!(Instant::now() < deadline, "never {columns} x {rows}: {size:?}");
            // Only the terminal's own processes have a signal of it.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Waits until the screen is as wanted; its text.
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE * crate::engine::slowness();
        loop {
            let text = self.text();
            if wanted(&text) {
                return text;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(self.changes.recv_timeout(left).is_ok(), "never on the screen: {what}\n{text}");
            // The last of many changes is what counts.
            while self.changes.try_recv().is_ok() {}
        }
    }

    /// Waits until a text is on the screen, which then has it.
    pub fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    /// Waits until the host's shell is ready, and clears the screen.
    pub fn wait_for_prompt(&self) -> String {
        let text = self.wait_until("the prompt", |screen| screen.trim_end().ends_with(PROMPT));
        self.tmux(&["send-keys", "-R"]);
        self.tmux(&["clear-history"]);
        self.key("Enter");
        self.wait_until("a clear screen", |screen| screen.trim_end().ends_with(PROMPT));
        text
    }

    /// Insists that the terminal is as a shell wants it: it shows what is typed, and Ctrl-C is a signal.
    pub fn assert_sane(&self) {
        self.line("stty -a | tr ' ;' '\\n' | grep -xE -- '-?(echo|icanon|isig|opost)' | sort | tr '\\n' ' '");
        self.wait_for("echo icanon isig opost");
        self.wait_for_prompt();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        drop(Command::new("tmux").arg("-S").arg(&self.socket).arg("kill-server").output());
        drop(self.watcher.kill());
        drop(self.watcher.wait());
        self.processes.iter().for_each(leaks::wait_until_gone);
    }
}
