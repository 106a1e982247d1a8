//! A VM in the words of `podman inspect` and `docker inspect`, for `--format`.

use serde_json::{Value, json};

use crate::state::{HealthResult, Status, VmState};

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
        "Config": {
            "Image": vm.image,
            "Cmd": vm.command,
            "Labels": vm.labels,
        },
        "HostConfig": {
            "AutoRemove": vm.remove,
            "RestartPolicy": { "Name": policy, "MaximumRetryCount": retries.parse::<u32>().unwrap_or(0) },
            "NanoCpus": u64::from(vm.cpus) * 1_000_000_000,
            "Memory": u64::from(vm.memory_mib) << 20,
        },
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
