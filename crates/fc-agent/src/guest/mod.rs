//! What the boot plan makes of a guest: identity, time, randomness, network; and again, of one that goes on
//! from a snapshot.

pub(crate) mod clock;
mod connections;
mod entropy;
mod frozen;
mod identity;
mod interfaces;
mod netlink;
mod provocation;
pub(crate) mod restored;
mod settings;

use anyhow::Context as _;
use fcvm_proto::BootPlan;

pub(crate) use frozen::Frozen;

/// Applies the plan, job aside.
///
/// # Errors
/// Where the guest would not be what the host asked for.
pub(crate) fn apply(plan: &BootPlan) -> anyhow::Result<()> {
    clock::set(plan.time_unix_nanos).context("failed to set the clock")?;
    entropy::Pool::open().and_then(|pool| pool.add(&plan.entropy)).context("failed to add entropy")?;
    identity::write(&plan.identity, &plan.network)
        .and_then(|()| identity::show())
        .context("failed to write the guest's identity")?;
    interfaces::loopback().context("failed to bring up the loopback interface")?;
    if let Err(error) = settings::allow_ping() {
        tracing::warn!(%error, "`ping` needs a capability");
    }
    interfaces::set_up(&plan.network.interfaces)
}

/// Whether QEMU translates this guest's code: what it does for the first time is then slow.
pub(crate) fn is_emulated() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        /// Of hypervisors' own leaves the first, which tells whose they are.
        const HYPERVISOR: u32 = 0x4000_0000;
        let said = core::arch::x86_64::__cpuid(HYPERVISOR);
        [said.ebx, said.ecx, said.edx].map(u32::to_le_bytes).concat() == *b"TCGTCGTCGTCG"
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}
