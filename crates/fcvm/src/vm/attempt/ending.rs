//! The end of a machine, and why it came.

use std::{io, time::Duration};

use tokio::time::timeout;

use super::Attempt;
use crate::{
    hypervisor::{Death, Stop},
    output::sanitize,
    vm::VmError,
};

/// A hypervisor whose link broke because it ends has ended by then.
const DYING: Duration = Duration::from_secs(5);

impl Attempt<'_> {
    /// What a broken link means: most often a machine that is dying and knows why. One that
    /// goes on without a link is killed by the caller, and the link's error stands.
    pub(super) async fn settle(&mut self, error: VmError) -> VmError {
        match timeout(DYING, self.process.wait()).await {
            Ok(status) => self.died(status).await,
            Err(_) => error,
        }
    }

    /// Why a machine ended that should not have.
    pub(super) async fn died(&mut self, status: io::Result<std::process::ExitStatus>) -> VmError {
        let status = match status {
            Ok(status) => status,
            Err(source) => return VmError::Host { what: "wait for the hypervisor", source },
        };
        self.console.end().await;
        self.messages.end().await;
        let console = self.console.last_lines();
        if let Some(reason) = self.console.panic() {
            return VmError::Panicked { reason, console, started: self.claim.state().started.is_some() };
        }
        let mut why = "";
        let stop = self.stopped.borrow().clone().or_else(|| {
            match self.hypervisor.death(status, &self.messages.last_lines()) {
                Death::Guest(stop) => Some(stop),
                Death::Explained(explanation) => {
                    why = explanation;
                    None
                }
                Death::Unknown => None,
            }
        });
        let how = match stop {
            Some(Stop::PoweredOff) => "powered off".to_owned(),
            Some(Stop::Reset) => "reset".to_owned(),
            Some(Stop::Other(cause)) => format!("stopped ({})", sanitize(&cause)),
            None => {
                let (hypervisor, messages) = (self.hypervisor.name(), self.messages.last_lines());
                let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
                return VmError::HypervisorDied { hypervisor, status, why, messages };
            }
        };
        VmError::Stopped { how, console }
    }

    /// Ends the hypervisor, and waits for its end.
    pub(in crate::vm) async fn kill(&mut self) {
        if let Err(error) = self.process.kill().await {
            tracing::debug!(%error, "the hypervisor was already gone");
        }
        if let Some(parent) = self.unheard.take()
            && !parent.heard().await
        {
            self.record(|state| state.started = None);
        }
    }
}
