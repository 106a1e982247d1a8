//! The table of the host for a bridged VM.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::Value;

use super::{
    DSTNAT, FILTER, Forward, Hook, RAW, SRCNAT, Table,
    expression::{
        accept, destination, destination_in, dnat, drop, established, family_of, forwarded, from, masquerade,
        not_to, port, source, source_in, source_not_in, to, to_this_host,
    },
    passage::{self, Chain},
};
use crate::network::Prefix;

/// What the table is made of.
#[derive(Debug, Clone)]
pub struct HostRules<'a> {
    /// Its name.
    pub table: &'a str,
    /// The host's end of the link to the VM's namespace.
    pub interface: &'a str,
    /// With what the interfaces of all VMs begin.
    pub interfaces: &'a str,
    /// The namespace's addresses on that link.
    pub addresses: &'a [IpAddr],
    /// Published ports.
    pub forwards: &'a [Forward],
    /// Chains of the host's own that would drop what is passed on.
    pub closed: &'a [Chain],
}

impl HostRules<'_> {
    /// The commands that make it.
    #[must_use]
    pub fn commands(&self) -> Value {
        let mut table = Table::anew(self.table);
        self.guard(&mut table);
        self.translation(&mut table);
        self.forward(&mut table);
        table.commands.extend(passage::open(self.closed, self.interface));
        table.finish()
    }

    /// What comes from the VM is its own, and not for the host's loopback. Before it is known that it answers
    /// what came from there.
    fn guard(&self, table: &mut Table) {
        let hook = Hook { kind: "filter", name: "prerouting", priority: RAW, policy: "accept" };
        table.chain("guard", Some(hook));
        let v4 = Prefix { address: Ipv4Addr::new(127, 0, 0, 0).into(), length: 8 };
        let v6 = Prefix { address: Ipv6Addr::LOCALHOST.into(), length: 128 };
        for loopback in [v4, v6] {
            table.rule("guard", [from(self.interface), destination_in(&[loopback]), drop()]);
        }
        let link_local = Prefix { address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0).into(), length: 10 };
        for v4 in [true, false] {
            let length = if v4 { 32 } else { 128 };
            let own = self.addresses.iter().filter(|address| address.is_ipv4() == v4);
            let mut own: Vec<_> = own.map(|&address| Prefix { address, length }).collect();
            if !v4 {
                own.push(link_local);
            }
            if !own.is_empty() {
                table.rule("guard", [from(self.interface), source_not_in(&own), drop()]);
            }
        }
    }

    fn translation(&self, table: &mut Table) {
        let hook = |name, priority| Hook { kind: "nat", name, priority, policy: "accept" };
        table.chain("arriving", Some(hook("prerouting", DSTNAT)));
        table.chain("local", Some(hook("output", DSTNAT)));
        table.chain("leaving", Some(hook("postrouting", SRCNAT)));
        for Forward { record, relay } in self.forwards {
            let here = record.host.ip();
            // The kernel translates within a family only.
            let Some(&there) = self.addresses.iter().find(|address| address.is_ipv4() == here.is_ipv4())
            else {
                continue;
            };
            let address = if here.is_unspecified() { to_this_host() } else { destination(here) };
            let number = port(record.protocol, record.host.port());
            let rule = [family_of(here), address, number, dnat(there, *relay)];
            table.rule("arriving", rule.clone());
            table.rule("local", rule);
        }
        for &address in self.addresses {
            table.rule("leaving", [source(address), not_to(self.interface), masquerade()]);
            // Its own published port, by way of the host.
            table.rule("leaving", [source(address), to(self.interface), masquerade()]);
        }
        let v4 = Prefix { address: Ipv4Addr::new(127, 0, 0, 0).into(), length: 8 };
        table.rule("leaving", [to(self.interface), source_in(&[v4]), masquerade()]);
    }

    fn forward(&self, table: &mut Table) {
        let hook = Hook { kind: "filter", name: "forward", priority: FILTER, policy: "accept" };
        table.chain("forward", Some(hook));
        // Another VM only at a port that it publishes.
        let others = format!("{}*", self.interfaces);
        table.rule("forward", [from(self.interface), established(), accept()]);
        table.rule("forward", [from(self.interface), to(&others), forwarded(), accept()]);
        table.rule("forward", [from(self.interface), to(&others), drop()]);
        for permitted in [established(), forwarded()] {
            table.rule("forward", [to(self.interface), permitted, accept()]);
        }
        table.rule("forward", [to(self.interface), drop()]);
    }
}
