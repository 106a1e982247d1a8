//! `fcvm ls`.

use std::{process::ExitCode, time::Duration};

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::ls::Args,
    network,
    output::{Printer, ago, table},
    state::{HealthStatus, Registry, RuntimeDir, Status, Usage, VmState},
    storage::DataDir,
};

/// A VM as `--json` shows it: its record and what it uses now.
#[derive(Debug, Serialize)]
pub(super) struct Listed {
    #[serde(flatten)]
    state: VmState,
    /// The owner's PID, as that of the VM, while it lives.
    pid: Option<i32>,
    uptime_seconds: u64,
    /// CPU time of the hypervisor so far.
    cpu_seconds: f64,
    /// Proportional set size of the hypervisor.
    memory_pss_bytes: Option<u64>,
}

/// Runs `fcvm ls`.
///
/// # Errors
/// Where the state cannot be read or the result not be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let vms = if args.all { registry.list_all()? } else { registry.list()? };
    if args.quiet {
        for vm in &vms {
            printer.data(vm.id.short())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let vms: Vec<_> = vms.into_iter().map(|state| Listed::measure(state, now)).collect();
    if args.json {
        printer.data(serde_json::to_string_pretty(&vms)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = vms.iter().map(|vm| row(vm, now)).collect();
    printer
        .data(table(["NAME", "ID", "IMAGE", "STATUS", "PID", "UPTIME", "CPU", "MEMORY", "PORTS"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

impl Listed {
    pub(super) fn measure(state: VmState, now: Timestamp) -> Self {
        let usage = state.hypervisor_process.as_ref().and_then(Usage::of);
        let until = state.finished.unwrap_or(now);
        let uptime = until.duration_since(state.started.unwrap_or(until));
        Self {
            pid: state.is_alive().then_some(state.owner.pid),
            uptime_seconds: u64::try_from(uptime.as_secs()).unwrap_or(0),
            cpu_seconds: usage.map_or(0.0, |usage| usage.cpu.as_secs_f64()),
            memory_pss_bytes: usage.and_then(|usage| usage.pss),
            state,
        }
    }
}

fn row(vm: &Listed, now: Timestamp) -> [String; 9] {
    let none = || "-".to_owned();
    let limit = ByteSize::mib(vm.state.memory_mib.into());
    let used = vm.memory_pss_bytes.map_or_else(none, |bytes| ByteSize::b(bytes).to_string());
    let [pid, uptime, cpu, memory] = match vm.pid {
        Some(pid) => [
            pid.to_string(),
            humantime::format_duration(Duration::from_secs(vm.uptime_seconds)).to_string(),
            format!("{:.1} s / {}", vm.cpu_seconds, vm.state.cpus),
            format!("{used} / {limit}"),
        ],
        None => std::array::from_fn(|_| none()),
    };
    let [name, image] = [vm.state.name.to_string(), vm.state.image.clone()];
    let ports = network::summary(&vm.state.ports);
    [name, vm.state.id.short().to_owned(), image, status(&vm.state, now), pid, uptime, cpu, memory, ports]
}

/// What it does, or how and when it ended.
fn status(vm: &VmState, now: Timestamp) -> String {
    if vm.status == Status::Running && !vm.responding {
        return "running (not answering)".into();
    }
    // Without a check of its own a container that runs is well, which need not be said.
    if vm.status == Status::Running
        && (!vm.health_log.is_empty() || vm.health_status == HealthStatus::Starting)
    {
        return format!("running ({})", vm.health_status);
    }
    if vm.status != Status::Exited {
        return vm.status.to_string();
    }
    let code = vm.exit_code.map_or("?".to_owned(), |code| code.to_string());
    let when = vm.finished.map(|then| format!(" {}", ago(now, then))).unwrap_or_default();
    format!("exited ({code}){when}")
}
