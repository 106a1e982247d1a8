//! The unsafe part: what happens between fork and exec.

use std::{io, os::unix::process::CommandExt as _, process::Command};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the child get `signal` when the *thread* that starts it ends, however
/// that happens (the kernel ties the signal to the thread that forked). The
/// caller keeps that thread until the child has ended.
pub fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = getpid();
    let bind = move || {
        set_parent_process_death_signal(Some(signal))?;
        // The parent may have died before the line above.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe code may run: the closure makes the
    // two system calls prctl and getppid, and neither allocates nor takes locks (an `io::Error`
    // of a kind or an errno is plain data).
    unsafe { command.pre_exec(bind) };
}
