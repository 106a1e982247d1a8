//! nftables' words as libnftables-json(5) has them.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::network::{Prefix, Protocol};

/// The interface that a packet came by.
pub(super) fn from(interface: &str) -> Value {
    equal(&json!({ "meta": { "key": "iifname" } }), interface)
}

/// Not that interface.
pub(super) fn not_from(interface: &str) -> Value {
    compare("!=", &json!({ "meta": { "key": "iifname" } }), interface)
}

/// The interface that it leaves by. A `*` at the end stands for whatever follows.
pub(super) fn to(interface: &str) -> Value {
    equal(&json!({ "meta": { "key": "oifname" } }), interface)
}

/// Not that interface.
pub(super) fn not_to(interface: &str) -> Value {
    compare("!=", &json!({ "meta": { "key": "oifname" } }), interface)
}

/// Whose address it has.
pub(super) fn source(address: impl Into<IpAddr>) -> Value {
    let address = address.into();
    equal(&field(address, "saddr"), address.to_string())
}

/// An address of that kind which is none of these.
pub(super) fn source_not_in(prefixes: &[Prefix]) -> Value {
    compare("!=", &field(prefixes[0].address, "saddr"), set(prefixes))
}

/// Whose address of that kind is one of these.
pub(super) fn source_in(prefixes: &[Prefix]) -> Value {
    equal(&field(prefixes[0].address, "saddr"), set(prefixes))
}

/// To whom it goes.
pub(super) fn destination(address: impl Into<IpAddr>) -> Value {
    let address = address.into();
    equal(&field(address, "daddr"), address.to_string())
}

/// To one of these, of which there is one at least.
pub(super) fn destination_in(prefixes: &[Prefix]) -> Value {
    equal(&field(prefixes[0].address, "daddr"), set(prefixes))
}

/// To a member of a set that has a name. The family is the address's.
pub(super) fn destination_of(name: &str, like: impl Into<IpAddr>) -> Value {
    equal(&field(like.into(), "daddr"), format!("@{name}"))
}

/// To an address of this host.
pub(super) fn to_this_host() -> Value {
    equal(&json!({ "fib": { "result": "type", "flags": ["daddr"] } }), "local")
}

/// IPv4 or IPv6, as the address is.
pub(super) fn family_of(address: impl Into<IpAddr>) -> Value {
    let family = if address.into().is_ipv4() { "ipv4" } else { "ipv6" };
    equal(&json!({ "meta": { "key": "nfproto" } }), family)
}

/// The port that it goes to.
pub(super) fn port(protocol: Protocol, number: u16) -> Value {
    equal(&json!({ "payload": { "protocol": protocol.to_string(), "field": "dport" } }), number)
}

/// One of the ports that it goes to.
pub(super) fn ports(protocol: Protocol, first: u16, last: u16) -> Value {
    let range = json!({ "range": [first, last] });
    equal(&json!({ "payload": { "protocol": protocol.to_string(), "field": "dport" } }), range)
}

/// ICMP, or ICMPv6, of this type.
pub(super) fn icmp(version: &str, kind: &str) -> Value {
    equal(&json!({ "payload": { "protocol": version, "field": "type" } }), kind)
}

/// A part of, or an answer to, what has been let through.
pub(super) fn established() -> Value {
    compare("in", &json!({ "ct": { "key": "state" } }), json!(["established", "related"]))
}

/// The first of a conversation.
pub(super) fn new() -> Value {
    compare("in", &json!({ "ct": { "key": "state" } }), json!(["new"]))
}

/// A part of a TCP connection that is not its beginning.
pub(super) fn not_beginning() -> Value {
    let flags = json!({ "payload": { "protocol": "tcp", "field": "flags" } });
    compare("!=", &json!({ "&": [flags, { "|": ["syn", "ack"] }] }), "syn")
}

/// A part of nothing that is known.
pub(super) fn invalid() -> Value {
    compare("in", &json!({ "ct": { "key": "state" } }), json!(["invalid"]))
}

/// Whose destination was changed.
pub(super) fn forwarded() -> Value {
    compare("in", &json!({ "ct": { "key": "status" } }), "dnat")
}

/// Beyond so many bytes a second.
pub(super) fn beyond(bytes: u64) -> Value {
    json!({ "limit": { "rate": bytes, "rate_unit": "bytes", "per": "second", "inv": true,
        // A tenth of a second's at once, and the longest packet that a tap passes on in any case.
        "burst": (bytes / 10).max(128 << 10), "burst_unit": "bytes" } })
}

/// As often as somebody reads.
pub(super) fn seldom() -> Value {
    json!({ "limit": { "rate": 20, "per": "second", "burst": 50 } })
}

/// Changes its destination.
pub(super) fn dnat(to: impl Into<IpAddr>, port: u16) -> Value {
    let to = to.into();
    json!({ "dnat": { "family": ip(to), "addr": to.to_string(), "port": port } })
}

/// Changes its destination to the port of this host.
pub(super) fn redirect(port: u16) -> Value {
    json!({ "redirect": { "port": port } })
}

/// Changes its source to the address of the interface that it leaves by.
pub(super) fn masquerade() -> Value {
    json!({ "masquerade": null })
}

/// Tells of it.
pub(super) fn log(prefix: &str, group: u16) -> Value {
    json!({ "log": { "prefix": prefix, "group": group } })
}

/// Tells the sender that it is forbidden.
pub(super) fn reject() -> Value {
    json!({ "reject": { "type": "icmpx", "expr": "admin-prohibited" } })
}

/// Tells the sender that there is no such TCP connection.
pub(super) fn reset() -> Value {
    json!({ "reject": { "type": "tcp reset" } })
}

/// Goes on with that chain.
pub(super) fn jump(chain: &str) -> Value {
    json!({ "jump": { "target": chain } })
}

/// Counts it, as all rules do that `iptables` makes.
pub(super) fn counter() -> Value {
    json!({ "counter": null })
}

/// Lets it through.
pub(super) fn accept() -> Value {
    json!({ "accept": null })
}

/// Drops it.
pub(super) fn drop() -> Value {
    json!({ "drop": null })
}

fn equal(left: &Value, right: impl Into<Value>) -> Value {
    compare("==", left, right)
}

fn compare(op: &str, left: &Value, right: impl Into<Value>) -> Value {
    json!({ "match": { "op": op, "left": left, "right": right.into() } })
}

fn field(address: IpAddr, name: &str) -> Value {
    json!({ "payload": { "protocol": ip(address), "field": name } })
}

fn ip(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn set(prefixes: &[Prefix]) -> Value {
    json!({ "set": prefixes.iter().map(|prefix| element(*prefix)).collect::<Vec<_>>() })
}

/// A member of a set.
pub(super) fn element(prefix: Prefix) -> Value {
    let whole = if prefix.address.is_ipv4() { 32 } else { 128 };
    if prefix.length == whole {
        json!(prefix.address.to_string())
    } else {
        json!({ "prefix": { "addr": prefix.address.to_string(), "len": prefix.length } })
    }
}
