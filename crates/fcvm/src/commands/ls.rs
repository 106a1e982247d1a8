//! `fcvm ls`.

use std::{process::ExitCode, time::Duration};

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::ls::Args,
    output::{Printer, table},
    state::{Registry, RuntimeDir, Usage, VmState},
    storage::DataDir,
};

/// A VM as `--json` shows it: its record and what it uses now.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    state: VmState,
    /// The owner's PID, as that of the VM.
    pid: i32,
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
    let vms = Registry::new(data, RuntimeDir::from_env()).list()?;
    if args.quiet {
        for vm in &vms {
            printer.data(vm.id.short())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let now = Timestamp::now();
    let vms: Vec<_> = vms.into_iter().map(|state| measure(state, now)).collect();
    if args.json {
        printer.data(serde_json::to_string_pretty(&vms)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<_> = vms.iter().map(row).collect();
    printer.data(table(["NAME", "ID", "IMAGE", "STATUS", "PID", "UPTIME", "CPU", "MEMORY"], &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn measure(state: VmState, now: Timestamp) -> Listed {
    let usage = state.hypervisor_process.as_ref().and_then(Usage::of);
    let uptime = now.duration_since(state.started.unwrap_or(now));
    Listed {
        pid: state.owner.pid,
        uptime_seconds: uptime.as_secs().unsigned_abs(),
        cpu_seconds: usage.map_or(0.0, |usage| usage.cpu.as_secs_f64()),
        memory_pss_bytes: usage.and_then(|usage| usage.pss),
        state,
    }
}

fn row(vm: &Listed) -> [String; 8] {
    let limit = ByteSize::mib(vm.state.memory_mib.into());
    let used = vm.memory_pss_bytes.map_or("-".to_owned(), |bytes| ByteSize::b(bytes).to_string());
    [
        vm.state.name.to_string(),
        vm.state.id.short().to_owned(),
        vm.state.image.clone(),
        vm.state.status.to_string(),
        vm.pid.to_string(),
        humantime::format_duration(Duration::from_secs(vm.uptime_seconds)).to_string(),
        format!("{:.1} s / {}", vm.cpu_seconds, vm.state.cpus),
        format!("{used} / {limit}"),
    ]
}
