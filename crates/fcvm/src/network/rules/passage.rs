//! Rules in chains of the host's own firewall that would drop what it passes on for a bridged VM: as what one
//! chain drops is dropped, whatever others say, ours alone cannot let it through.
//!
//! They come last, in place of the chain's policy: what the host's own rules refuse stays refused. Each has the
//! name of the VM's link as its comment, by which it is found again.

use serde_json::{Value, json};

use super::{
    FAMILY,
    expression::{accept, counter, from, to},
};

/// A chain of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    family: String,
    table: String,
    name: String,
}

/// Asks for all chains.
#[must_use]
pub fn list_chains() -> Value {
    json!({ "nftables": [{ "list": { "chains": null } }] })
}

/// Of an answer to [`list_chains`] those that see what the host passes on, but for ours: these are in tables
/// whose names begin so.
fn passing<'a>(answer: &'a Value, ours: &'a str) -> impl Iterator<Item = &'a Value> {
    let chains = objects(answer, "chain");
    let chains = chains.filter(|chain| chain["type"] == "filter" && chain["hook"] == "forward");
    let is_ours = move |chain: &Value| {
        chain["family"] == FAMILY && chain["table"].as_str().is_some_and(|table| table.starts_with(ours))
    };
    chains
        .filter(move |chain| ["ip", "ip6", FAMILY].iter().any(|it| chain["family"] == *it) && !is_ours(chain))
}

/// Of an answer to [`list_chains`] the chains that let nothing through but what their rules name. Ours are in
/// tables whose names begin so.
#[must_use]
pub fn closed(answer: &Value, ours: &str) -> Vec<Chain> {
    passing(answer, ours).filter(|chain| chain["policy"] == "drop").filter_map(Chain::of).collect()
}

/// The commands that let what comes from and goes to this link through such chains.
pub(super) fn open(chains: &[Chain], link: &str) -> Vec<Value> {
    let rules = chains.iter().flat_map(|chain| [from(link), to(link)].map(|way| (chain, way)));
    let add = |(Chain { family, table, name }, way): (&Chain, Value)| {
        let expressions = [way, counter(), accept()];
        let rule =
            json!({ "family": family, "table": table, "chain": name, "comment": link, "expr": expressions });
        json!({ "add": { "rule": rule } })
    };
    rules.map(add).collect()
}

/// Of an answer to [`list_chains`] the chains where rules of ours may be, whatever their policy is now. Tables
/// whose names begin so are ours.
#[must_use]
pub fn candidates(answer: &Value, ours: &str) -> Vec<Chain> {
    passing(answer, ours).filter_map(Chain::of).collect()
}

/// Of an answer to [`Chain::list`] the commands that remove the rules for this link; `None` where there are none.
#[must_use]
pub fn close(answer: &Value, link: &str) -> Option<Value> {
    let rules = objects(answer, "rule").filter(|rule| rule["comment"] == link);
    let deletes: Vec<_> = rules
        .map(|rule| {
            let [family, table, chain, handle] = ["family", "table", "chain", "handle"].map(|key| &rule[key]);
            let rule = json!({ "family": family, "table": table, "chain": chain, "handle": handle });
            json!({ "delete": { "rule": rule } })
        })
        .collect();
    (!deletes.is_empty()).then(|| json!({ "nftables": deletes }))
}

impl Chain {
    /// Asks for its rules. Of several chains `nft` 1.0.6 does not tell in one answer.
    #[must_use]
    pub fn list(&self) -> Value {
        let Self { family, table, name } = self;
        json!({ "nftables": [{ "list": { "chain": { "family": family, "table": table, "name": name } } }] })
    }

    fn of(object: &Value) -> Option<Self> {
        let text = |key: &str| object[key].as_str().map(str::to_owned);
        Some(Self { family: text("family")?, table: text("table")?, name: text("name")? })
    }
}

fn objects<'a>(answer: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    answer["nftables"].as_array().into_iter().flatten().filter_map(move |object| object.get(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nft 1.0.6 says of a host with Docker, of one with a firewall of its own, and of two VMs.
    fn host() -> Value {
        let chain = |family: &str, table: &str, name: &str, hook: &str, policy: &str| {
            json!({ "chain": { "family": family, "table": table, "name": name, "handle": 1,
                "type": "filter", "hook": hook, "prio": 0, "policy": policy } })
        };
        json!({ "nftables": [
            { "metainfo": { "version": "1.0.6", "json_schema_version": 1 } },
            chain("ip", "filter", "FORWARD", "forward", "drop"),
            { "chain": { "family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2 } },
            chain("ip", "filter", "INPUT", "input", "drop"),
            chain("inet", "own", "pass", "forward", "accept"),
            chain("inet", "fcvm-10.231.0.4", "forward", "forward", "drop"),
            chain("bridge", "filter", "FORWARD", "forward", "drop"),
        ] })
    }

    #[test]
    fn only_what_would_drop_is_opened() {
        let closed = closed(&host(), "fcvm-");
        assert_eq!(closed.iter().map(|chain| &*chain.name).collect::<Vec<_>>(), ["FORWARD"]);
        let added = open(&closed, "fcvm-x");
        assert_eq!(added.len(), 2);
        for (command, key) in added.iter().zip(["iifname", "oifname"]) {
            let rule = &command["add"]["rule"];
            assert_eq!((&rule["table"], &rule["comment"]), (&json!("filter"), &json!("fcvm-x")));
            assert_eq!(rule["expr"][0]["match"]["left"]["meta"]["key"], key);
            assert_eq!(rule["expr"][0]["match"]["right"], "fcvm-x");
        }
        assert_eq!(super::closed(&Value::Null, "fcvm-"), []);
    }

    #[test]
    fn only_ones_own_are_removed() {
        let asked: Vec<_> = candidates(&host(), "fcvm-").iter().map(Chain::list).collect();
        let tables: Vec<_> =
            asked.iter().map(|list| &list["nftables"][0]["list"]["chain"]["table"]).collect();
        // Whose policy may have been another before.
        assert_eq!(tables, ["filter", "own"]);
        let rule = |handle: u32, comment: &str| {
            json!({ "rule": { "family": "ip", "table": "filter", "chain": "FORWARD", "handle": handle,
                "comment": comment, "expr": [] } })
        };
        let uncommented =
            json!({ "rule": { "family": "ip", "table": "filter", "chain": "FORWARD", "handle": 9 } });
        let answer =
            json!({ "nftables": [rule(3, "fcvm-x"), uncommented, rule(4, "fcvm-y"), rule(5, "fcvm-x")] });
        let removed = close(&answer, "fcvm-x").unwrap();
        let handles: Vec<_> = removed["nftables"]
            .as_array()
            .unwrap()
            .iter()
            .map(|command| command["delete"]["rule"]["handle"].clone())
            .collect();
        assert_eq!(handles, [3, 5]);
        assert_eq!(close(&answer, "fcvm-z"), None);
    }
}
