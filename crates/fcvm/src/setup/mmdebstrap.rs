//! Runs mmdebstrap, whose result is a tar archive on its standard output.

use std::{
    collections::VecDeque,
    io::{self, BufRead as _, BufReader, Read},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdout, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::{SetupError, base, jail::Workshop, plan::DebianPlan};
use crate::{output::Progress, process::die_with_parent};

pub(super) const PROGRAM: &str = "mmdebstrap";
/// So many last lines of its messages go into an error.
const TAIL: usize = 12;

/// What is asked of mmdebstrap.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) debian: &'a DebianPlan,
    pub(super) variant: &'a str,
    pub(super) packages: &'a [String],
    pub(super) exclude: &'a [String],
    pub(super) workshop: &'a Workshop,
}

impl Request<'_> {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "--format=tar".to_owned(),
            format!("--variant={}", self.variant),
            format!("--components={}", self.debian.components.join(",")),
            "--aptopt=APT::Install-Recommends \"false\"".into(),
            // The guest has a devtmpfs; and making nodes needs privileges.
            "--skip=output/dev".into(),
        ];
        if !self.packages.is_empty() {
            arguments.push(format!("--include={}", self.packages.join(",")));
        }
        arguments.extend(self.exclude.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
        arguments.extend([self.debian.suite.clone(), "-".into()]);
        arguments.extend(self.debian.mirror.clone());
        arguments
    }

    /// Runs it and hands the archive to `consume`, all within this thread.
    ///
    /// # Errors
    /// What `consume` returns, or [`SetupError::Tool`] where mmdebstrap fails: its
    /// failure comes first, since a cut archive is only what follows from it.
    pub(super) fn run<T>(
        &self,
        progress: &Progress,
        consume: impl FnOnce(&mut BufReader<ChildStdout>) -> Result<T, SetupError>,
    ) -> Result<T, SetupError> {
        let mut command = self.workshop.command(PROGRAM);
        command.args(self.arguments()).env("LC_ALL", "C.UTF-8");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let no_start = |source| SetupError::Start { program: PROGRAM.into(), source };
        // Where it fails half way, it hangs up on all of its process group: not on ours, and who called us.
        command.process_group(0);
        die_with_parent(&mut command, self.workshop.signal());
        let child = command.spawn().map_err(no_start)?;
        let mut running = Running { child, signal: self.workshop.signal() };
        let (stdout, stderr) = match (running.child.stdout.take(), running.child.stderr.take()) {
            (Some(stdout), Some(stderr)) => (stdout, stderr),
            _ => return Err(no_start(io::ErrorKind::BrokenPipe.into())),
        };
        std::thread::scope(|scope| {
            let messages = scope.spawn(move || drain(stderr, progress));
            let mut archive = BufReader::with_capacity(1 << 20, stdout);
            let consumed = consume(&mut archive).and_then(|value| {
                // tar pads its archive; a reader that stops at the end mark would break its pipe.
                io::copy(&mut archive, &mut io::sink())
                    .map_err(|source| SetupError::Stream { program: PROGRAM.into(), source })?;
                Ok(value)
            });
            drop(archive);
            let status = running.child.wait().map_err(no_start)?;
            let messages = messages.join().unwrap_or_default();
            match consumed {
                // Not its fault: it failed because nobody read on.
                Err(error) if !is_of_archive(&error) => Err(error),
                _ if !status.success() => Err(SetupError::Tool { program: PROGRAM.into(), status, messages }),
                result => result,
            }
        })
    }
}

fn is_of_archive(error: &SetupError) -> bool {
    match error {
        SetupError::Stream { .. } => true,
        SetupError::BaseDisk { source, .. } => base::is_in_archive(source),
        _ => false,
    }
}

/// Reads messages to the end, whatever they are: a full pipe would freeze the
/// child. Shows the steps and keeps the last lines.
fn drain(stderr: impl Read, progress: &Progress) -> Vec<String> {
    let mut reader = BufReader::new(stderr);
    let mut tail = VecDeque::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        // A line without an end must not fill the memory.
        match reader.by_ref().take(4096).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return tail.into(),
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if let Some(step) = text.strip_prefix("I: ") {
            progress.step(step);
        }
        tracing::debug!(target: "mmdebstrap", "{text}");
        if !text.is_empty() {
            tail.push_back(text.to_owned());
        }
        if tail.len() > TAIL {
            tail.pop_front();
        }
    }
}

/// A child that does not outlive its owner.
struct Running {
    child: Child,
    signal: Signal,
}

impl Running {
    /// Ends it, where it has not ended by itself.
    fn stop(&mut self) -> Option<()> {
        match self.child.try_wait() {
            Ok(None) => {}
            _ => return None,
        }
        let pid = Pid::from_raw(self.child.id().try_into().ok()?)?;
        kill_process(pid, self.signal).ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.stop().is_some()
            && let Err(error) = self.child.wait()
        {
            tracing::debug!(%error, "mmdebstrap cannot be waited for");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::plan::Plan, *};

    #[test]
    fn the_command_line_is_made_of_the_plan() {
        let mut plan = Plan::parse(super::super::plan::DEFAULT_PLAN).unwrap();
        plan.debian.mirror = Some("file:/mirror".into());
        let packages = ["podman".to_owned(), "crun".to_owned()];
        let exclude = ["/usr/share/man/*".to_owned()];
        let directory = tempfile::tempdir().unwrap();
        let data = crate::storage::DataDir::open(Some(directory.path().to_owned())).unwrap();
        let workshop = Workshop::open(&data).unwrap();
        let request = Request {
            debian: &plan.debian,
            variant: "minbase",
            packages: &packages,
            exclude: &exclude,
            workshop: &workshop,
        };
        assert_eq!(
            request.arguments(),
            [
                "--format=tar",
                "--variant=minbase",
                "--components=main",
                "--aptopt=APT::Install-Recommends \"false\"",
                "--skip=output/dev",
                "--include=podman,crun",
                "--dpkgopt=path-exclude=/usr/share/man/*",
                "trixie",
                "-",
                "file:/mirror",
            ]
        );
    }

    #[test]
    fn any_amount_of_messages_is_read_and_the_last_are_kept() {
        let progress = crate::output::Printer::from_env().progress("test");
        let mut text = "x".repeat(1 << 20);
        for line in 0..100 {
            text.push_str(&format!("\nE: line {line}\n"));
        }
        let tail = drain(text.as_bytes(), &progress);
        assert_eq!(tail.len(), TAIL);
        assert_eq!(tail[TAIL - 1], "E: line 99");
    }
}
