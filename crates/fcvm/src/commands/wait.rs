//! `fcvm wait`.

use std::process::ExitCode;

use super::block_on;
use crate::{
    cli::wait::{Args, Condition},
    exit,
    output::Printer,
    state::{Event, HealthStatus, Registry, RuntimeDir, Status, VmState},
    storage::DataDir,
    vm::control::{Client, ControlError},
};

/// Runs `fcvm wait`.
///
/// # Errors
/// Where the result cannot be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let mut result = ExitCode::SUCCESS;
    for vm in &args.vms {
        let waited = registry.find(vm).map_err(anyhow::Error::from).and_then(|vm| match args.condition {
            Condition::Exited => exited(&vm, &registry).map(Some),
            Condition::Running => until(&vm, &registry, |vm| vm.status == Status::Running).map(|()| None),
            Condition::Healthy => {
                until(&vm, &registry, |vm| vm.health_status == HealthStatus::Healthy).map(|()| None)
            }
            Condition::Unhealthy => {
                until(&vm, &registry, |vm| vm.health_status == HealthStatus::Unhealthy).map(|()| None)
            }
        });
        match waited {
            Ok(Some(code)) => printer.data(code)?,
            Ok(None) => {}
            Err(error) => {
                printer.error(&error, exit::hint(&error).as_deref());
                result = ExitCode::from(exit::FAILED);
            }
        }
    }
    Ok(result)
}

/// Waits until a VM that lives is as it should be.
fn until(vm: &VmState, registry: &Registry, reached: fn(&VmState) -> bool) -> anyhow::Result<()> {
    let watch = registry.watch(vm)?;
    loop {
        let ended = watch.wait(Some(std::time::Duration::ZERO))? == Event::Ended;
        match registry.get(&vm.id) {
            Some(vm) if !ended && vm.status == Status::Running && reached(&vm) => return Ok(()),
            Some(vm) if !ended && vm.status != Status::Exited => {}
            _ => return Err(ControlError::NotRunning { name: vm.name.clone() }.into()),
        }
        watch.wait(None)?;
    }
}

/// Waits until all has ended; the exit code.
fn exited(vm: &VmState, registry: &Registry) -> anyhow::Result<u8> {
    let watch = registry.watch(vm)?;
    // A VM of which nothing is to stay tells its code to those who ask in time.
    let mut told = None;
    loop {
        let now = registry.get(&vm.id);
        told = now.as_ref().and_then(|vm| vm.exit_code).or(told);
        match now.as_ref().map(|vm| vm.status) {
            Some(Status::Exited) | None => break,
            Some(Status::Running) if told.is_none() => match ask(vm, registry)? {
                Ok(code) => told = Some(code),
                Err(error) => tracing::debug!(%error, "the owner does not tell"),
            },
            Some(_) => {}
        }
        if watch.wait(None)? == Event::Ended {
            registry.collect_garbage()?;
            break;
        }
    }
    watch.wait_for_end(None)?;
    let last = registry.get(&vm.id);
    match last.as_ref().and_then(|vm| vm.exit_code).or(told) {
        Some(code) => Ok(code),
        None => {
            let why = last.and_then(|vm| vm.error).unwrap_or_else(|| "it was removed".into());
            anyhow::bail!("VM `{}` has no exit code: {why}", vm.name)
        }
    }
}

fn ask(vm: &VmState, registry: &Registry) -> anyhow::Result<Result<u8, ControlError>> {
    block_on(async { Client::connect(vm, registry).await?.wait().await })
}
