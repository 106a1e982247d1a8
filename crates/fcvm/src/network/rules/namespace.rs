//! The table in a VM's namespace: what its guest may send, and where it goes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    DSTNAT, FAMILY, FILTER, Forward, Hook, RAW, SRCNAT, Table,
    expression::{
        accept, beyond, destination, destination_in, destination_of, dnat, drop, element, established,
        family_of, forwarded, from, icmp, invalid, jump, log, masquerade, new, not_beginning, not_from, port,
        ports, redirect, reject, reset, seldom, source_in, source_not_in, to,
    },
};
use crate::network::{
    Destination, Egress, Ports, Prefix, Protocol,
    layout::{DNS, GATEWAY, GUEST, GUEST_V6, LOG_GROUP, TAP, UPLINK},
};

/// Its name.
pub const TABLE: &str = "fcvm";
/// Sets of addresses that DNS told for names to which the guest may go.
const LEARNED: [&str; 2] = ["learned4", "learned6"];

/// What the table is made of.
#[derive(Debug, Clone)]
pub struct NamespaceRules<'a> {
    /// Published ports.
    pub forwards: &'a [Forward],
    /// Where the guest may go.
    pub egress: &'a Egress,
    /// Networks of others, to which it never goes.
    pub forbidden: &'a [Prefix],
    /// Ports of the host's loopback that are at the gateway.
    pub localhost: &'a [Ports],
    /// How much it may send and receive, in bytes a second.
    pub bandwidth: Option<u64>,
}

impl NamespaceRules<'_> {
    /// The commands that make it.
    #[must_use]
    pub fn commands(&self) -> Value {
        let mut table = Table::new(TABLE);
        self.sets(&mut table);
        guard(&mut table);
        self.input(&mut table);
        self.translation(&mut table);
        self.forward(&mut table);
        self.egress(&mut table);
        table.finish()
    }

    fn sets(&self, table: &mut Table) {
        for (name, kind) in LEARNED.into_iter().zip(["ipv4_addr", "ipv6_addr"]) {
            let set = json!({ "family": FAMILY, "table": TABLE, "name": name, "type": kind,
                "flags": ["timeout"] });
            table.commands.push(json!({ "add": { "set": set } }));
        }
    }

    /// What comes for the namespace itself.
    fn input(&self, table: &mut Table) {
        let hook = Hook { kind: "filter", name: "input", priority: FILTER, policy: "drop" };
        table.chain("input", Some(hook));
        table.rule("input", [from("lo"), accept()]);
        table.rule("input", [established(), accept()]);
        for kind in ["nd-neighbor-solicit", "nd-neighbor-advert", "nd-router-advert", "echo-request"] {
            table.rule("input", [icmp("icmpv6", kind), accept()]);
        }
        table.rule("input", [icmp("icmp", "echo-request"), accept()]);
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            table.rule("input", [from(TAP), destination(GATEWAY), port(protocol, DNS), accept()]);
        }
        for Ports { first, last } in self.localhost {
            let ports = ports(Protocol::Tcp, *first, *last);
            table.rule("input", [from(TAP), destination(GATEWAY), ports, accept()]);
        }
        // Whatever else is asked for is not there, rather than silent.
        table.rule("input", [from(TAP), reject()]);
        // A hypervisor that is taken over gets no further than its guest.
        let hook = Hook { kind: "filter", name: "output", priority: FILTER, policy: "accept" };
        table.chain("own", Some(hook));
        table.rule("own", [to(UPLINK), new(), reject()]);
    }

    /// Where ports lead, and as whom what leaves leaves.
    fn translation(&self, table: &mut Table) {
        let hook = |name, priority| Hook { kind: "nat", name, priority, policy: "accept" };
        table.chain("arriving", Some(hook("prerouting", DSTNAT)));
        table.chain("local", Some(hook("output", DSTNAT)));
        table.chain("leaving", Some(hook("postrouting", SRCNAT)));
        if self.egress.has_names() {
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                table.rule("arriving", [from(TAP), port(protocol, DNS), redirect(DNS)]);
            }
        }
        let mut told = Vec::new();
        for Forward { record, relay } in self.forwards {
            let target = (record.protocol, *relay, record.guest);
            // The same port at another address of the host.
            if told.contains(&target) {
                continue;
            }
            told.push(target);
            for guest in [IpAddr::from(GUEST), GUEST_V6.into()] {
                let to_guest = dnat(guest, record.guest);
                let arriving =
                    [not_from(TAP), family_of(guest), port(record.protocol, *relay), to_guest.clone()];
                table.rule("arriving", arriving);
                // What comes from the host's loopback, pasta hands over on the namespace's.
                let loopback = loopback(guest);
                let local = [destination_in(&[loopback]), port(record.protocol, *relay), to_guest];
                table.rule("local", local);
            }
        }
        table.rule("leaving", [to(UPLINK), masquerade()]);
        for guest in [IpAddr::from(GUEST), GUEST_V6.into()] {
            table.rule("leaving", [to(TAP), source_in(&[loopback(guest)]), masquerade()]);
        }
    }

    /// What passes through.
    fn forward(&self, table: &mut Table) {
        let hook = Hook { kind: "filter", name: "forward", priority: FILTER, policy: "drop" };
        table.chain("egress", None);
        table.chain("forward", Some(hook));
        if let Some(bytes) = self.bandwidth {
            table.rule("forward", [from(TAP), beyond(bytes), drop()]);
            table.rule("forward", [to(TAP), beyond(bytes), drop()]);
        }
        table.rule("forward", [invalid(), drop()]);
        table.rule("forward", [established(), accept()]);
        table.rule("forward", [from(UPLINK), to(TAP), forwarded(), accept()]);
        // Of a connection that a clone's source had, or a guest's before: nobody beyond need answer this.
        table.rule("forward", [from(TAP), to(UPLINK), not_beginning(), new(), reset()]);
        table.rule("forward", [from(TAP), to(UPLINK), jump("egress")]);
    }

    /// Where the guest may begin a conversation.
    fn egress(&self, table: &mut Table) {
        let refuse = |table: &mut Table, prefixes: &[Prefix]| {
            if !prefixes.is_empty() {
                let told = log("never", LOG_GROUP);
                table.rule("egress", [destination_in(prefixes), seldom(), told]);
                table.rule("egress", [destination_in(prefixes), reject()]);
            }
        };
        let (v4, v6) = by_family(never().into_iter().chain(self.forbidden.iter().copied()));
        refuse(table, &v4);
        refuse(table, &v6);
        match self.egress {
            Egress::Allow => table.rule("egress", [accept()]),
            Egress::Deny => {}
            Egress::Only(destinations) => {
                let prefixes = destinations.iter().filter_map(|destination| match destination {
                    Destination::Network(prefix) => Some(*prefix),
                    Destination::Name(_) => None,
                });
                let (v4, v6) = by_family(prefixes);
                for prefixes in [v4, v6] {
                    if !prefixes.is_empty() {
                        table.rule("egress", [destination_in(&prefixes), accept()]);
                    }
                }
                table.rule("egress", [destination_of(LEARNED[0], GUEST), accept()]);
                table.rule("egress", [destination_of(LEARNED[1], GUEST_V6), accept()]);
            }
        }
        table.rule("egress", [seldom(), log("egress", LOG_GROUP)]);
        table.rule("egress", [reject()]);
    }
}

/// Nobody but the guest speaks on its interface, and the guest as itself only.
fn guard(table: &mut Table) {
    let hook = Hook { kind: "filter", name: "prerouting", priority: RAW, policy: "accept" };
    table.chain("guard", Some(hook));
    let own = [Prefix { address: GUEST.into(), length: 32 }];
    table.rule("guard", [from(TAP), source_not_in(&own), drop()]);
    let own = [
        Prefix { address: GUEST_V6.into(), length: 128 },
        Prefix { address: LINK_LOCAL_V6.into(), length: 10 },
        // As whom it asks whether an address is taken.
        Prefix { address: Ipv6Addr::UNSPECIFIED.into(), length: 128 },
    ];
    table.rule("guard", [from(TAP), source_not_in(&own), drop()]);
    // The namespace's own loopback is not the guest's.
    for loopback in [IpAddr::from(GUEST), GUEST_V6.into()].map(loopback) {
        table.rule("guard", [not_from("lo"), destination_in(&[loopback]), drop()]);
    }
}

const LINK_LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// The loopback network of an address's kind.
fn loopback(like: IpAddr) -> Prefix {
    match like {
        IpAddr::V4(_) => Prefix { address: Ipv4Addr::new(127, 0, 0, 0).into(), length: 8 },
        IpAddr::V6(_) => Prefix { address: Ipv6Addr::LOCALHOST.into(), length: 128 },
    }
}

/// Where no guest goes: loopback, and link-local addresses, among which are the metadata services of clouds,
/// which take whoever asks for the host.
fn never() -> [Prefix; 5] {
    let v4 = |a, b, length| Prefix { address: Ipv4Addr::new(a, b, 0, 0).into(), length };
    [
        v4(0, 0, 8),
        v4(127, 0, 8),
        v4(169, 254, 16),
        Prefix { address: Ipv6Addr::LOCALHOST.into(), length: 128 },
        Prefix { address: LINK_LOCAL_V6.into(), length: 10 },
    ]
}

fn by_family(prefixes: impl Iterator<Item = Prefix>) -> (Vec<Prefix>, Vec<Prefix>) {
    prefixes.partition(|prefix| prefix.address.is_ipv4())
}

/// Lets the guest go to addresses, for so long each.
#[must_use]
pub fn learn(addresses: &[(IpAddr, Duration)]) -> Value {
    let mut commands = Vec::new();
    for (address, time) in addresses {
        let set = if address.is_ipv4() { LEARNED[0] } else { LEARNED[1] };
        let member = |elem: Value| json!({ "family": FAMILY, "table": TABLE, "name": set, "elem": [elem] });
        let bare = element(Prefix { address: *address, length: if address.is_ipv4() { 32 } else { 128 } });
        let timed = json!({ "elem": { "val": bare, "timeout": time.as_secs().max(1) } });
        // Added again a member keeps its time, so that it is removed in between.
        commands.push(json!({ "add": { "element": member(bare.clone()) } }));
        commands.push(json!({ "delete": { "element": member(bare) } }));
        commands.push(json!({ "add": { "element": member(timed) } }));
    }
    json!({ "nftables": commands })
}
