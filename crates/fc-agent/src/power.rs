//! The end of a guest.

use std::process::ExitCode;

use rustix::{
    fs::sync,
    system::{RebootCommand, reboot},
};

/// Syncs the disks and ends the machine. Comes back only where the kernel refuses.
pub(crate) fn off() -> ExitCode {
    sync();
    // Where there is nothing to power off with the kernel would halt, and the machine go on.
    let command = if crate::init::ends_by_reset() { RebootCommand::Restart } else { RebootCommand::PowerOff };
    match reboot(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::log::console(&format!("fc-agent: the kernel refuses to end: {error}"));
            // PID 1 that ends is a kernel panic: the host sees an end either way.
            ExitCode::FAILURE
        }
    }
}
