//! Building a run of `fcvm`.

use std::{
    ffi::OsStr,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use crate::{Output, Running, TestEnv};

/// An `fcvm` command of a [`TestEnv`]: nothing of the tests' own environment
/// leaks in, standard input is empty and the outputs are collected.
#[derive(Debug)]
pub struct Fcvm {
    command: Command,
    collect: [bool; 2],
}

impl Fcvm {
    pub(crate) fn new(env: &TestEnv, program: &OsStr) -> Self {
        let mut command = match env.before() {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", env.root())
            .env("FCVM_DATA_DIR", env.data())
            .env("FCVM_RUNTIME_DIR", env.runtime())
            .env(env.start(), "1")
            .envs(env.variables().iter().cloned())
            .current_dir(env.root())
            .process_group(0)
            .stdin(Stdio::null());
        Self { command, collect: [true; 2] }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Unsets an environment variable.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Gives standard input; [`Stdio::piped`] is then written by the test with [`Running::stdin`].
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// Sends standard output elsewhere than into [`Output::stdout`].
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.command.stdout(stdout);
        self.collect[0] = false;
        self
    }

    /// Sends standard error elsewhere than into [`Output::stderr`].
    #[must_use]
    pub fn stderr(mut self, stderr: impl Into<Stdio>) -> Self {
        self.command.stderr(stderr);
        self.collect[1] = false;
        self
    }

    /// The plain command, for who times it.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Starts it.
    #[must_use]
    pub fn spawn(mut self) -> Running {
        if self.collect[0] {
            self.command.stdout(Stdio::piped());
        }
        if self.collect[1] {
            self.command.stderr(Stdio::piped());
        }
        Running::spawn(self.command)
    }

    /// Runs it to its end.
    #[must_use]
    pub fn run(self) -> Output {
        self.spawn().wait()
    }
}
