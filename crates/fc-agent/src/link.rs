//! The thread that moves the link's bytes.
//!
//! Whoever uses a volume of the host waits until the link has moved bytes both ways. So the link has a
//! thread to itself, on which nobody uses one: the agent may start a program that lies in a volume.

use std::{future::pending, io, thread};

use tokio::runtime::{Builder, Handle};

/// Starts the thread, which stays.
///
/// # Errors
/// Where there is no thread to be had.
pub(crate) fn start() -> io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_io().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new().name("link".into()).spawn(move || runtime.block_on(pending::<()>()))?;
    Ok(handle)
}
