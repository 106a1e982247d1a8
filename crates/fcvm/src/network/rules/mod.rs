//! The firewall's rules: pure, as JSON for `nft`.

mod expression;
mod host;
mod namespace;
pub mod passage;

use serde_json::{Value, json};

pub use host::HostRules;
pub use namespace::{NamespaceRules, TABLE, learn};

/// nftables' family of what concerns IPv4 and IPv6.
const FAMILY: &str = "inet";

/// Where a published port leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Where the host listens, and what the port speaks.
    pub record: super::PortRecord,
    /// The port in the VM's namespace on the way: another for each pair of a protocol and a port of the guest.
    pub relay: u16,
}

/// A table in the making: commands that are carried out all or not at all.
#[derive(Debug)]
struct Table {
    name: String,
    commands: Vec<Value>,
}

/// What a chain hooks into.
#[derive(Debug, Clone, Copy)]
struct Hook {
    /// `filter` or `nat`.
    kind: &'static str,
    name: &'static str,
    priority: i32,
    policy: &'static str,
}

/// Before connections are tracked.
const RAW: i32 = -300;
const DSTNAT: i32 = -100;
const FILTER: i32 = 0;
const SRCNAT: i32 = 100;

impl Table {
    fn new(name: &str) -> Self {
        let table = json!({ "add": { "table": { "family": FAMILY, "name": name } } });
        Self { name: name.to_owned(), commands: vec![table] }
    }

    /// In place of one that a killed process left.
    fn anew(name: &str) -> Self {
        let mut table = Self::new(name);
        let old = json!({ "delete": { "table": { "family": FAMILY, "name": name } } });
        let new = table.commands[0].clone();
        table.commands.extend([old, new]);
        table
    }

    fn chain(&mut self, name: &str, hook: Option<Hook>) {
        let mut chain = json!({ "family": FAMILY, "table": self.name, "name": name });
        if let Some(hook) = hook {
            chain["type"] = hook.kind.into();
            chain["hook"] = hook.name.into();
            chain["prio"] = hook.priority.into();
            chain["policy"] = hook.policy.into();
        }
        self.commands.push(json!({ "add": { "chain": chain } }));
    }

    fn rule(&mut self, chain: &str, expressions: impl Into<Vec<Value>>) {
        let rule =
            json!({ "family": FAMILY, "table": self.name, "chain": chain, "expr": expressions.into() });
        self.commands.push(json!({ "add": { "rule": rule } }));
    }

    fn finish(self) -> Value {
        json!({ "nftables": self.commands })
    }
}

/// Removes a table of the host.
#[must_use]
pub fn remove(table: &str) -> Value {
    let table = json!({ "family": FAMILY, "name": table });
    // What is not there cannot be deleted, and what is there may be made again.
    json!({ "nftables": [{ "add": { "table": table } }, { "delete": { "table": table } }] })
}

/// Asks for all tables.
#[must_use]
pub fn list() -> Value {
    json!({ "nftables": [{ "list": { "tables": null } }] })
}

/// The names of the tables in an answer to [`list`] that begin so.
#[must_use]
pub fn tables(answer: &Value, prefix: &str) -> Vec<String> {
    let objects = answer["nftables"].as_array().into_iter().flatten();
    let names = objects.filter(|object| object["table"]["family"] == FAMILY);
    names
        .filter_map(|object| object["table"]["name"].as_str())
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect()
}
