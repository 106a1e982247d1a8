//! What is compared: the directory itself, and what shows it elsewhere.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rustix::{
    mount::{UnmountFlags, unmount},
    process::{Pid, Signal, kill_process},
};

/// libfuse's example of that name, which no distribution packages.
const HP: &str = "FUSE_PIPE_BENCH_HP";

/// Shows a directory elsewhere, or does not.
#[derive(Debug, Clone)]
pub(crate) enum Contender {
    Host,
    /// This crate, by that cache; server and client are processes.
    Pipe(&'static str),
    /// Another program, in the foreground.
    Other {
        name: &'static str,
        program: OsString,
        arguments: &'static [&'static str],
    },
}

impl Contender {
    /// The host, the caches of the pipe, and what else is installed.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = vec![Self::Host, Self::Pipe("auto"), Self::Pipe("always"), Self::Pipe("exclusive")];
        if Command::new("bindfs").arg("--version").stdout(Stdio::null()).status().is_ok() {
            all.push(Self::Other { name: "bindfs", program: "bindfs".into(), arguments: &["-f"] });
        }
        if let Some(program) = env::var_os(HP) {
            all.push(Self::Other { name: "passthrough_hp", program, arguments: &["--foreground"] });
        }
        all
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Pipe(cache) => cache,
            Self::Other { name, .. } => name,
        }
    }

    /// Shows `directory` at `mountpoint`; `scratch` is for a socket.
    pub(crate) fn show(&self, directory: &Path, mountpoint: &Path, scratch: &Path) -> Result<Shown> {
        let mut shown = Shown { mountpoint: mountpoint.into(), programs: Vec::new() };
        match self {
            Self::Host => return Ok(shown),
            Self::Pipe(cache) => {
                let (program, socket) = (tool()?, scratch.join("socket"));
                let cache = [OsStr::new("--cache"), OsStr::new(cache)];
                shown.start(Command::new(&program).arg("serve").args([directory, &socket]).args(cache))?;
                until("a socket", || socket.exists())?;
                shown.start(Command::new(&program).arg("mount").args([&socket, mountpoint]))?;
            }
            Self::Other { program, arguments, .. } => {
                shown.start(Command::new(program).args(*arguments).args([directory, mountpoint]))?;
            }
        }
        let before = fs::metadata(scratch)?.dev();
        until("a mount", || fs::metadata(mountpoint).is_ok_and(|now| now.dev() != before))?;
        Ok(shown)
    }
}

/// The other example, which is beside this one.
fn tool() -> Result<PathBuf> {
    let path = env::current_exe()?.with_file_name("fuse-pipe");
    ensure!(path.exists(), "no `{}`: build all examples", path.display());
    Ok(path)
}

/// A mount that is there until this is dropped.
#[derive(Debug)]
pub(crate) struct Shown {
    mountpoint: PathBuf,
    programs: Vec<Child>,
}

impl Shown {
    fn start(&mut self, command: &mut Command) -> Result<()> {
        let child = command.stdin(Stdio::null()).spawn();
        self.programs.push(child.with_context(|| format!("failed to run {command:?}"))?);
        Ok(())
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.programs.is_empty() {
            return;
        }
        // The programs end by themselves then, but for the pipe's server.
        let unmounted = unmount(&self.mountpoint, UnmountFlags::empty());
        let last = self.programs.pop();
        for mut program in last.into_iter().chain(self.programs.drain(..).inspect(interrupt)) {
            if unmounted.is_err() {
                interrupt(&program);
            }
            drop(program.wait());
        }
    }
}

fn interrupt(program: &Child) {
    if let Some(pid) = i32::try_from(program.id()).ok().and_then(Pid::from_raw) {
        // It may have ended.
        kill_process(pid, Signal::TERM).ok();
    }
}

/// Programs say nothing when they are ready.
fn until(what: &str, is_there: impl Fn() -> bool) -> Result<()> {
    let start = Instant::now();
    while !is_there() {
        ensure!(start.elapsed() < Duration::from_secs(10), "{what} did not come");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
