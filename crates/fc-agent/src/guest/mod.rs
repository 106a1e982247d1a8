//! What the boot plan makes of a guest: identity, time, randomness, network.

pub(crate) mod clock;
mod entropy;
mod identity;
mod interfaces;
mod netlink;
mod settings;

use anyhow::Context as _;
use fcvm_proto::BootPlan;

/// Applies the plan, job aside.
///
/// # Errors
/// Where the guest would not be what the host asked for.
pub(crate) fn apply(plan: &BootPlan) -> anyhow::Result<()> {
    clock::set(plan.time_unix_nanos).context("failed to set the clock")?;
    entropy::add(&plan.entropy).context("failed to add entropy")?;
    identity::write(&plan.identity, &plan.network).context("failed to write the guest's identity")?;
    interfaces::loopback().context("failed to bring up the loopback interface")?;
    if let Err(error) = settings::allow_ping() {
        tracing::warn!(%error, "`ping` needs a capability");
    }
    interfaces::set_up(&plan.network.interfaces)
}
