//! The beginning: the agent's `Hello`, the plan, the streams.

use std::time::Instant;

use fcvm_proto::{
    BootPlan, Identity, Job, Port, Restore, ToGuest,
    session::{KEY_LEN, SessionId},
};

use super::{Attempt, deserted, filling::Filling};
use crate::vm::{VmError, boot::watchdog, guest::Guest, outputs::Outputs, run::random, signals::Signals};

/// Random bytes for a guest.
const ENTROPY: usize = 64;

impl Attempt<'_> {
    /// Waits for the agent and gives it the plan. All that waits for the guest is in one place,
    /// beside what may happen meanwhile.
    pub(super) async fn greet(&mut self, signals: &mut Signals) -> Result<Guest, VmError> {
        let Some(link) = self.link.take() else {
            return Err(VmError::Violation { what: "the link has been used".into() });
        };
        let capabilities = self.hypervisor.capabilities();
        let server = self.plan.origin.as_ref().and_then(|origin| origin.server.as_ref());
        let pid = self.process.pid();
        let id = SessionId(random::<KEY_LEN>()?);
        let (key, restores) = (self.link_key, self.plan.saved().is_some());
        let first = match restores {
            true => ToGuest::Restore(Box::new(self.restore()?)),
            false => ToGuest::Start(Box::new(self.boot_plan()?)),
        };
        let met = async {
            let pipe = link.pipe().await?;
            let loaded = Instant::now();
            crate::failpoint::reach("link-connected");
            let mut guest = Guest::connect(pipe, key, id, first).await?;
            let greeted = Instant::now();
            if restores {
                guest.restored().await?;
                crate::failpoint::reach("restored");
            }
            let beside = || self.hypervisor.stream(self.claim.runtime_dir());
            let ways = self.volumes.connect(&guest.opener(), beside).await?;
            Ok((guest, ways, loaded, greeted))
        };
        tokio::select! {
            met = met => match met {
                Err(error @ VmError::Violation { .. }) => Err(self.settle(error).await),
                Err(VmError::Hypervisor(error)) if error.may_be_its_end() => {
                    Err(self.settle(error.into()).await)
                }
                met => {
                    let (guest, ways, loaded, greeted) = met?;
                    self.ways = ways;
                    if restores {
                        self.timings.mark_at("load", loaded);
                        self.timings.mark_at("agent", greeted);
                        self.timings.mark("ready");
                    } else {
                        self.timings.hello(&guest.hello);
                    }
                    Ok(guest)
                }
            },
            pid = deserted(server) => Err(VmError::ServerEnded { pid }),
            status = self.process.wait() => Err(self.died(status).await),
            signal = signals.next() => Err(VmError::Interrupted { signal }),
            had = watchdog(pid, &capabilities) => {
                self.kill().await;
                Err(VmError::NotResponding { seconds: had.as_secs(), console: self.console.last_lines() })
            }
        }
    }

    /// Takes a run's output, of which only a container has any.
    pub(super) fn fill<'b>(&self, guest: &Guest, outputs: &'b Outputs) -> Result<Filling<'b>, VmError> {
        let ports: &[_] = match &self.plan.job {
            // A terminal is one stream.
            Job::Container(container) if container.terminal.is_some() => &[Port::Stdout],
            Job::Container(_) => &[Port::Stdout, Port::Stderr],
            _ => &[],
        };
        let filling = Filling::new(outputs, ports)?;
        filling.open(&guest.opener());
        Ok(filling)
    }

    /// What a guest is told that goes on, as another one or in another session.
    pub(super) fn restore(&self) -> Result<Restore, VmError> {
        Ok(Restore {
            epoch: random()?,
            identity: self.identity(),
            // When it is sent.
            time_unix_nanos: 0,
            entropy: random::<ENTROPY>()?.to_vec(),
            network: self.network.clone(),
        })
    }

    fn identity(&self) -> Identity {
        let state = self.claim.state();
        Identity {
            id: state.id.as_str().to_owned(),
            name: state.name.to_string(),
            hostname: self.plan.hostname.clone(),
        }
    }

    fn boot_plan(&self) -> Result<BootPlan, VmError> {
        Ok(BootPlan {
            identity: self.identity(),
            // When it is sent.
            time_unix_nanos: 0,
            entropy: random::<ENTROPY>()?.to_vec(),
            network: self.network.clone(),
            volumes: self.plan.maps.iter().map(|map| map.volume(self.volumes.lanes)).collect(),
            job: self.plan.job.clone(),
        })
    }
}
