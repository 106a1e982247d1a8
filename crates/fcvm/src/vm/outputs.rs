//! Both outputs of a container, on their way to ours.

use std::{io, os::fd::AsFd as _, path::Path, time::Instant};

use super::{
    VmError,
    spool::{Done, Spool},
};

/// Spools of output and error output.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) stdout: Spool,
    pub(super) stderr: Spool,
}

impl Outputs {
    /// To our standard output and standard error; what waits is in nameless files in `directory`.
    ///
    /// # Errors
    /// Where those files cannot be made.
    pub(super) fn to_ours(directory: &Path) -> io::Result<Self> {
        Ok(Self {
            stdout: Spool::new(directory, io::stdout().as_fd().try_clone_to_owned()?)?,
            stderr: Spool::new(directory, io::stderr().as_fd().try_clone_to_owned()?)?,
        })
    }

    /// When the first byte of either came.
    pub(super) fn first_byte(&self) -> Option<Instant> {
        [&self.stdout, &self.stderr].into_iter().filter_map(Spool::first_byte).min()
    }

    /// No more will come.
    pub(super) fn end(&self) {
        self.stdout.end();
        self.stderr.end();
    }

    /// Waits until all is written, or nobody reads it.
    ///
    /// # Errors
    /// Where writing failed.
    pub(super) async fn flushed(&self) -> Result<(), VmError> {
        for output in [&self.stdout, &self.stderr] {
            // A reader that went away did so on purpose.
            if let Done::Failed(error) = output.done().await {
                return Err(VmError::Output(error.into()));
            }
        }
        Ok(())
    }
}
