//! What a workload may ask about its own VM: documented in `docs/guide.md`.

use serde_json::{Map, Value, json};

use crate::{
    network::{Mode, layout::GUEST},
    state::VmState,
};

/// What Firecracker's metadata service holds, in bytes: its limit is 51200, of its own notation.
const LIMIT: usize = 48 << 10;

/// The data of a VM. All of its leaves are texts, since only those can be asked for one by one.
pub(super) fn of(state: &VmState, hostname: &str) -> Value {
    let mut data = json!({
        "id": state.id.as_str(),
        "name": state.name.to_string(),
        "hostname": hostname,
        "image": state.image,
        "image-digest": state.image_digest.map(|digest| digest.to_string()).unwrap_or_default(),
        "cpus": state.cpus.to_string(),
        "memory-mib": state.memory_mib.to_string(),
        "addresses": addresses(state),
        "labels": state.labels,
    });
    if data.to_string().len() > LIMIT {
        tracing::warn!(
            limit = LIMIT,
            "the labels are too long for the metadata service: it has none of them"
        );
        data["labels"] = Value::Object(Map::new());
    }
    data
}

/// Those of the guest.
fn addresses(state: &VmState) -> Value {
    match &state.network {
        Some(network) if network.mode != Mode::None => json!({ "ipv4": GUEST.to_string() }),
        _ => json!({}),
    }
}
