//! What other processes ask for.

use std::time::Duration;

use fcvm_proto::{Job, ToGuest};
use tokio::{sync::mpsc, time::Instant};

use super::Attempt;
use crate::{
    process::SignalNumber,
    vm::{
        VmError,
        control::{Action, Order, Reply, Server},
        guest::Guest,
    },
};

impl Attempt<'_> {
    /// Lets other processes in; only a container has anything for them.
    pub(super) fn listen(&mut self, guest: &Guest) -> Result<Option<mpsc::Receiver<Order>>, VmError> {
        if !matches!(self.plan.job, Job::Container(_)) {
            return Ok(None);
        }
        let directory = self.claim.runtime_dir();
        let (server, orders) = Server::listen(directory, guest.opener())
            .map_err(|source| VmError::Control { path: directory.to_owned(), source })?;
        self.server = Some(server);
        Ok(Some(orders))
    }

    /// Does what another process asks for.
    pub(super) fn obey(&mut self, order: Order, guest: &Guest) {
        let refused = |why: &str| Reply::Refused(why.to_owned());
        let runs = self.started || self.resting.is_some();
        let reply = match order.action {
            Action::Rename(name) => match self.claim.rename(&name) {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Refused(format!("{:#}", anyhow::Error::from(error))),
            },
            _ if !runs => refused("its container does not run yet"),
            Action::Signal(_) if !self.started => refused("its container is between two runs"),
            Action::Signal(signal) => {
                if signal == SignalNumber::KILL || signal == self.plan.stop_signal {
                    self.restarts.end();
                }
                self.signal(signal, guest);
                Reply::Done
            }
            // What the guest has not written to the host's directories yet is wanted: it is given the time, unless
            // it is asked to end once more after that.
            Action::End if !self.plan.maps.is_empty() && !self.stopping.is_overdue() => {
                self.restarts.end();
                self.signal(SignalNumber::KILL, guest);
                Reply::Done
            }
            Action::End => {
                crate::failpoint::reach("end-ordered");
                self.restarts.end();
                self.unwanted = true;
                self.stopping.end_now();
                Reply::Done
            }
            Action::Stop(grace) => {
                crate::failpoint::reach("stop-ordered");
                self.restarts.end();
                self.ask_to_end(grace, guest);
                Reply::Done
            }
            // It takes more than this to make one.
            Action::Snapshot(..) => refused("a snapshot is no order of this kind"),
            // Answered when it runs.
            Action::Restart(grace) => {
                self.restarts.ask(order.reply);
                self.ask_to_end(grace, guest);
                self.resting = self.resting.map(|_| Instant::now());
                return;
            }
        };
        // Who asked may be gone.
        drop(order.reply.send(reply));
    }

    fn ask_to_end(&mut self, grace: Duration, guest: &Guest) {
        if self.started {
            guest.order(ToGuest::Signal(self.plan.stop_signal.number()));
            self.stopping.asked(grace);
        }
    }

    pub(super) fn signal(&mut self, signal: SignalNumber, guest: &Guest) {
        guest.order(ToGuest::Signal(signal.number()));
        if signal == SignalNumber::KILL {
            crate::failpoint::reach("kill-ordered");
            self.stopping.killed();
        }
    }

    /// Tells other processes how it ended, and lets none in any more.
    pub(in crate::vm) async fn farewell(&mut self, status: Option<u8>) {
        if let Some(server) = self.server.take() {
            server.end(status).await;
        }
    }
}
