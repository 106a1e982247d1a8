//! What of the host matters for a VM's network.

use std::{fs, path::Path};

use super::Mode;

/// What the host has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Whether it reaches others by IPv6, and VMs can so.
    pub has_v6: bool,
    /// The longest packets of its way out, where that is known.
    pub mtu: Option<u16>,
}

/// A default route that the kernel learned from a router, as in `linux/ipv6_route.h`: `RTF_ADDRCONF`.
const LEARNED: u32 = 0x0004_0000;
/// A route that refuses: `RTF_REJECT`.
const REFUSED: u32 = 0x0200;

impl Facts {
    /// Of this host, for a VM of this kind.
    #[must_use]
    pub fn of(mode: Mode) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let passes_on = || read("/proc/sys/net/ipv6/conf/all/forwarding").trim() == "1";
        let has_v6 = match (default_v6(&read("/proc/thread-self/net/ipv6_route")), mode) {
            (None, _) | (_, Mode::None) => false,
            (Some(_), Mode::Rootless) => true,
            // A host that begins to pass on packets no longer listens to routers, and would lose the route.
            (Some(flags), Mode::Bridged) => flags & LEARNED == 0 || passes_on(),
        };
        let mtu = default_v4(&read("/proc/thread-self/net/route")).and_then(|interface| {
            let path = Path::new("/sys/class/net").join(interface).join("mtu");
            // An interface that is not in this view of sysfs has the usual.
            fs::read_to_string(path).ok()?.trim().parse().ok()
        });
        Self { has_v6, mtu }
    }
}

/// The interface of the default route, by `/proc/net/route`: interface, destination, gateway, flags, …, of
/// which the eighth is the mask.
fn default_v4(table: &str) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        (fields.len() > 7 && fields[1] == "00000000" && fields[7] == "00000000").then(|| fields[0])
    })
}

/// The flags of the default route, by `/proc/net/ipv6_route`: destination, its length, source, its length,
/// gateway, metric, references, uses, flags, interface.
fn default_v6(table: &str) -> Option<u32> {
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
        let anywhere = fields[0].bytes().all(|digit| digit == b'0') && fields[1] == "00";
        (anywhere && flags & REFUSED == 0 && fields.get(9) != Some(&"lo")).then_some(flags)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_out_is_the_default_route() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth1\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(default_v4(table), Some("eth0"));
        assert_eq!(default_v4(""), None);
        let zeros = "0".repeat(32);
        let line = |destination: &str, flags: &str, interface: &str| {
            format!(
                "{destination} {zeros} 00 fd000000000000000000000000000001 00000400 00000001 0 {flags} {interface}\n"
            )
        };
        let network = line("fd000000000000000000000000000000 40", "00000001", "eth0");
        let refused = line(&format!("{zeros} 00"), "00200200", "lo");
        let default = line(&format!("{zeros} 00"), "00000003", "eth0");
        let learned = line(&format!("{zeros} 00"), "00450003", "eth0");
        assert_eq!(default_v6(&format!("{network}{refused}")), None);
        assert_eq!(default_v6(&format!("{network}{default}{refused}")), Some(3));
        assert_ne!(default_v6(&learned).unwrap() & LEARNED, 0);
    }
}
