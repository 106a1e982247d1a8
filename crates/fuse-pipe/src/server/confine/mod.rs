//! The server's process gives up what it does not need, before it hears its client.
//!
//! A client is hostile by assumption. Should it find a mistake in the server, these stand between it and the
//! host; each works without the others:
//!
//! | What | Leaves |
//! |---|---|
//! | capabilities | what changing anybody's files takes; for an ordinary user, or files that are only read, less |
//! | landlock | opening, making, moving and removing files beneath the served directory |
//! | seccomp | the system calls of a server |
//!
//! Landlock does not know of modes, owners, times and extended attributes: those of files elsewhere are kept
//! from the server only by who it is, so that one for an ordinary user's files should be that user's.
//!
//! A call that is not allowed fails with `EPERM`, and does not end the process: libraries try calls that they
//! can do without, newer ones all the time, and a client gains nothing from being told no.
//!
//! It is for a process of its own, which serves one directory, and has no other threads yet: what they may
//! do would stay as it was.

mod calls;
mod capabilities;
mod files;

use std::{fs, io, path::Path};

use rustix::thread::set_no_new_privs;

use crate::passthrough::Options;

/// The process may have been left with more than it needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// It is too late.
    #[error("the process has {threads} threads already")]
    Threads {
        /// How many, with this one.
        threads: usize,
    },
    /// The kernel has no landlock, or none that lets files be moved between directories (Linux 5.19).
    #[error("the kernel has no landlock, or it is disabled")]
    NoLandlock,
    /// Landlock failed.
    #[error("failed to confine the process to the served files")]
    Landlock(#[source] io::Error),
    /// Seccomp failed.
    #[error("failed to limit system calls")]
    Seccomp(#[source] io::Error),
    /// The kernel refused something else.
    #[error("failed to give up privileges")]
    Privileges(#[source] io::Error),
}

/// How much a mechanism does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// All that this crate knows of.
    Whole,
    /// What this kernel has of it.
    Partly,
}

/// What was given up, and what was not for what reason.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// Capabilities, and getting any back.
    pub capabilities: Result<Applied, ConfineError>,
    /// Files elsewhere.
    pub files: Result<Applied, ConfineError>,
    /// System calls.
    pub calls: Result<Applied, ConfineError>,
}

impl Report {
    /// Whether everything was applied, be it partly.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.reasons().next().is_none()
    }

    /// Why something was not.
    pub fn reasons(&self) -> impl Iterator<Item = &ConfineError> {
        [&self.capabilities, &self.files, &self.calls]
            .into_iter()
            .filter_map(|applied| applied.as_ref().err())
    }
}

/// Confines this process to serving what is at `path`, a directory or a file, as the options say. What cannot
/// be applied is left out, and in the report.
///
/// # Errors
/// Where there are other threads; nothing was applied then.
pub fn confine(path: &Path, options: &Options) -> Result<Report, ConfineError> {
    let threads = fs::read_dir("/proc/self/task").map_err(ConfineError::Privileges)?.count();
    if threads != 1 {
        return Err(ConfineError::Threads { threads });
    }
    // Seccomp wants it, and it is wanted anyway.
    set_no_new_privs(true).map_err(|errno| ConfineError::Privileges(errno.into()))?;
    let report = Report {
        capabilities: capabilities::drop_all_but_needed(options),
        files: files::confine(path, options.access),
        // Last, for the others need calls that it does not allow.
        calls: calls::limit(),
    };
    for reason in report.reasons() {
        tracing::warn!(reason = reason as &dyn std::error::Error, "the server is not wholly confined");
    }
    Ok(report)
}
