//! Settings of the kernel's network.

use std::{fs, io, path::Path};

/// Of IPv6, where the kernel has it.
const IPV6: &str = "/proc/sys/net/ipv6";
/// Groups whose members may open sockets for echo requests: with these `ping` needs no capability.
const PING: &str = "/proc/sys/net/ipv4/ping_group_range";
/// The highest group that the setting takes.
const ALL_GROUPS: &str = "0 2147483647";

/// Lets everyone in the guest use `ping`.
///
/// # Errors
/// The kernel's.
pub(super) fn allow_ping() -> io::Result<()> {
    fs::write(PING, ALL_GROUPS)
}

/// Whether the kernel has IPv6.
pub(super) fn has_ipv6() -> bool {
    Path::new(IPV6).exists()
}

/// Keeps an interface from taking addresses and routes from whoever advertises them on its link.
///
/// # Errors
/// The kernel's.
pub(super) fn ignore_advertisements(interface: &str) -> io::Result<()> {
    for setting in ["accept_ra", "autoconf"] {
        fs::write(Path::new(IPV6).join("conf").join(interface).join(setting), "0")?;
    }
    Ok(())
}
