//! The CPU's time stamp counter.

/// The counter now.
#[cfg(target_arch = "x86_64")]
pub(super) fn time_stamp() -> u64 {
    // SAFETY: every x86-64 CPU has the instruction; it reads a counter and touches no memory.
    unsafe { core::arch::x86_64::_rdtsc() }
}
