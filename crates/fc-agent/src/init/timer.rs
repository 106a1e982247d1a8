//! Whether the kernel has a timer.
//!
//! A kernel on x86 measures the timers of its CPUs against a clock when it boots. Where the host was
//! too busy just then it believes what it measured and turns them off ("APIC frequency too slow,
//! disabling apic timer"): everything works, and whoever sleeps never wakes. That shows as no timer
//! interrupt since the boot, of which there are hundreds by now.

/// Insists on a timer, by the text of `/proc/interrupts`.
///
/// # Errors
/// Where there is none.
pub(super) fn check(interrupts: &str) -> anyhow::Result<()> {
    // The CPUs' own, and the one of old machines.
    let of = |row: &str| {
        let line = interrupts.lines().find_map(|line| line.trim_start().strip_prefix(row)?.strip_prefix(':'));
        line.map(|counts| {
            counts.split_ascii_whitespace().map_while(|count| count.parse::<u64>().ok()).sum::<u64>()
        })
    };
    match of("LOC") {
        Some(0) if of("0").unwrap_or(0) == 0 => anyhow::bail!("the kernel has turned its timers off"),
        // Other architectures have no such row.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_timer_interrupts_is_told() {
        let row = |old: &str, own: &str| {
            format!(
                "           CPU0       CPU1\n{old}  4:  7  0  IO-APIC  4-edge  ttyS0\nLOC: {own} Local timer interrupts\n"
            )
        };
        assert!(check(&row("", "0 0")).is_err());
        assert!(check(&row("  0:  0  0  IO-APIC  2-edge  timer\n", "0 0")).is_err());
        assert!(check(&row("  0:  9  0  IO-APIC  2-edge  timer\n", "0 0")).is_ok());
        assert!(check(&row("", "0 12")).is_ok());
        assert!(check("  11:  5  GICv3  27 Level  arch_timer\n").is_ok());
    }
}
