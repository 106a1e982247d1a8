//! Both outputs of a container, on their way to the log and perhaps to ours.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
    time::Instant,
};

use tokio::io::{AsyncRead, sink};

use super::{
    VmError,
    log::{Log, Logged, Source},
    run::Output,
    spool::{Done, Spool},
};

/// Output and error output.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) stdout: One,
    pub(super) stderr: One,
}

/// One of them.
#[derive(Debug)]
pub(super) struct One {
    source: Source,
    log: Log,
    /// The way to ours.
    spool: Option<Spool>,
}

impl Outputs {
    /// To the log and, where that is wanted, to our standard output and standard error; what waits
    /// for those is in nameless files in `directory`.
    ///
    /// # Errors
    /// Where those files cannot be made.
    pub(super) fn new(directory: &Path, output: Output, log: &Log) -> io::Result<Self> {
        let one = |source, ours: io::Result<OwnedFd>| -> io::Result<One> {
            let spool = match output {
                Output::Inherited => Some(Spool::new(directory, ours?)?),
                Output::LogOnly => None,
            };
            Ok(One { source, log: log.clone(), spool })
        };
        Ok(Self {
            stdout: one(Source::Stdout, io::stdout().as_fd().try_clone_to_owned())?,
            stderr: one(Source::Stderr, io::stderr().as_fd().try_clone_to_owned())?,
        })
    }

    /// When the first byte of either came to a spool.
    pub(super) fn first_byte(&self) -> Option<Instant> {
        self.spools().filter_map(Spool::first_byte).min()
    }

    /// Ours get no more of it; the log does.
    pub(super) fn leave(&self) {
        self.spools().for_each(Spool::mute);
    }

    /// No more will come.
    pub(super) fn end(&self) {
        self.spools().for_each(Spool::end);
    }

    /// Waits until all is written, or nobody reads it.
    ///
    /// # Errors
    /// Where writing failed.
    pub(super) async fn flushed(&self) -> Result<(), VmError> {
        for output in self.spools() {
            // A reader that went away did so on purpose.
            if let Done::Failed(error) = output.done().await {
                return Err(VmError::Output(error.into()));
            }
        }
        Ok(())
    }

    fn spools(&self) -> impl Iterator<Item = &Spool> {
        [&self.stdout, &self.stderr].into_iter().filter_map(|output| output.spool.as_ref())
    }
}

impl One {
    /// Takes all of a stream. Ends with the stream, or when our reader is gone.
    pub(super) async fn fill(&self, stream: impl AsyncRead + Unpin) {
        let mut stream = Logged::new(stream, self.log.clone(), self.source);
        match &self.spool {
            Some(spool) => spool.fill(stream).await,
            None => {
                if let Err(error) = tokio::io::copy(&mut stream, &mut sink()).await {
                    tracing::debug!(%error, "an output stream broke");
                }
            }
        }
    }

    /// Waits until our reader is gone, or everything is written. The log never is.
    pub(super) async fn done(&self) -> Done {
        match &self.spool {
            Some(spool) => spool.done().await,
            None => std::future::pending().await,
        }
    }
}
