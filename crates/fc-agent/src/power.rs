//! The end of a guest.

use std::process::ExitCode;

use rustix::{
    fs::sync,
    system::{RebootCommand, reboot},
};

/// Syncs the disks and powers off. Comes back only where the kernel refuses.
pub(crate) fn off() -> ExitCode {
    sync();
    match reboot(RebootCommand::PowerOff) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            crate::log::console(&format!("fc-agent: the kernel refuses to power off: {error}"));
            // PID 1 that ends is a kernel panic: the host sees an end either way.
            ExitCode::FAILURE
        }
    }
}
