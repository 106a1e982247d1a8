//! A VM in the words of `podman inspect` and `docker inspect`, for `--format`.

use serde_json::{Map, Value, json};

use crate::{
    network::{Mode, NetworkRecord, PortRecord, layout},
    state::{HealthResult, MountRecord, Status, VmState},
};

/// The fields that scripts ask for. Where Podman has two names of a thing, both are there.
pub(super) fn of(vm: &VmState) -> Value {
    let alive = vm.is_alive();
    let running = alive && vm.status == Status::Running;
    let health = json!({
        "Status": vm.health_status,
        "FailingStreak": vm.health_log.iter().rev().take_while(|result| result.exit_code != 0).count(),
        "Log": vm.health_log.iter().map(health_result).collect::<Vec<_>>(),
    });
    let policy = vm.restart_policy.to_string();
    let (policy, retries) = policy.split_once(':').unwrap_or((&policy, ""));
    json!({
        "Id": vm.id,
        "Name": vm.name,
        "Created": vm.created,
        "Image": vm.image_digest,
        "ImageName": vm.image,
        "RestartCount": vm.restarts,
        "State": {
            "Status": status(vm),
            "Running": running,
            "Paused": false,
            "Dead": false,
            // As Podman and Docker, that of a container that has not ended is 0.
            "ExitCode": vm.exit_code.unwrap_or(0),
            "Error": vm.error.as_deref().unwrap_or_default(),
            "Pid": if alive { vm.owner.pid } else { 0 },
            "StartedAt": vm.started,
            "FinishedAt": vm.finished,
            "Health": health,
            "Healthcheck": health,
        },
        "NetworkSettings": network_settings(vm.network.as_ref(), &vm.ports),
        "Mounts": vm.mounts.iter().map(mount).collect::<Vec<_>>(),
        "Config": {
            "Image": vm.image,
            "Cmd": vm.command,
            "Labels": vm.labels,
        },
        "HostConfig": {
            "AutoRemove": vm.remove,
            "NetworkMode": vm.network.as_ref().map_or(String::new(), |network| network.mode.to_string()),
            "PortBindings": bindings(&vm.ports),
            "RestartPolicy": { "Name": policy, "MaximumRetryCount": retries.parse::<u32>().unwrap_or(0) },
            "NanoCpus": u64::from(vm.cpus) * 1_000_000_000,
            "Memory": u64::from(vm.memory_mib) << 20,
        },
    })
}

/// Where the host reaches the VM, and what that is for the VM the way out.
fn network_settings(network: Option<&NetworkRecord>, ports: &[PortRecord]) -> Value {
    let connected = network.filter(|network| network.mode != Mode::None);
    let (gateway, address, length) = match connected {
        None => (String::new(), String::new(), 0),
        Some(network) => match (network.ends(), network.subnet) {
            (Some((host, vm)), Some(subnet)) => (host.to_string(), vm.to_string(), subnet.length),
            // The host has no way to it; it is what the guest sees.
            _ => (layout::GATEWAY.to_string(), layout::GUEST.to_string(), layout::PREFIX),
        },
    };
    json!({
        "IPAddress": address,
        "IPPrefixLen": length,
        "Gateway": gateway,
        "MacAddress": connected.map_or(String::new(), |network| network.mac.to_string()),
        "Ports": bindings(ports),
    })
}

/// The host's places of each port of the guest.
fn bindings(ports: &[PortRecord]) -> Value {
    let mut bindings = Map::new();
    for port in ports {
        let places = bindings.entry(format!("{}/{}", port.guest, port.protocol)).or_insert_with(|| json!([]));
        let place = json!({ "HostIp": port.host.ip(), "HostPort": port.host.port().to_string() });
        places.as_array_mut().expect("it was made as one").push(place);
    }
    Value::Object(bindings)
}

fn mount(mount: &MountRecord) -> Value {
    json!({
        "Type": mount.kind,
        "Name": mount.name.as_deref().unwrap_or_default(),
        "Source": mount.source,
        "Destination": mount.destination,
        "Mode": "",
        "Options": mount.options,
        "RW": mount.writable,
    })
}

/// One word of Podman's for each of ours.
fn status(vm: &VmState) -> &'static str {
    match vm.status {
        Status::Created | Status::Starting => "created",
        Status::Running => "running",
        Status::Stopping => "stopping",
        Status::Exited => "exited",
    }
}

fn health_result(result: &HealthResult) -> Value {
    json!({
        "Start": result.start,
        "End": result.end,
        "ExitCode": result.exit_code,
        "Output": result.output,
    })
}
