//! `fcvm snapshot create`.

use std::process::ExitCode;

use crate::{
    cli::clone::Create,
    commands::block_on,
    output::Printer,
    snapshot::{Contents, SnapshotError, Store},
    state::{Registry, RuntimeDir, StateError, VmState},
    storage::DataDir,
    vm::control::{Client, Wanted},
};

/// Has a VM's owner make a snapshot; prints its tag.
pub(super) fn run(
    arguments: &Create,
    store: &Store,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let vm = vm(arguments, &registry)?;
    // The owner would find out as well, and could not say what to do about it.
    if store.get(&arguments.tag).is_ok() {
        return Err(SnapshotError::Exists { tag: arguments.tag.clone() }.into());
    }
    if let Some(base) = &arguments.diff {
        store.get(base)?;
    }
    let contents = if arguments.disk_only { Contents::Disk } else { Contents::Machine };
    let wanted = Wanted { tag: arguments.tag.clone(), contents, base: arguments.diff.clone(), unnamed: None };
    let saved = block_on(async { Client::connect(&vm, &registry).await?.snapshot(wanted).await })??;
    printer.data(&arguments.tag)?;
    if arguments.timings {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1000.0;
        printer.note(format!(
            "{:<12} {:>8}\n{:<12} {:>8.1}\n{:<12} {:>8.1}\n{:<12} {:>8.1}",
            "stage",
            "ms",
            "disk frozen",
            ms(saved.frozen),
            "paused",
            ms(saved.paused),
            "all",
            ms(saved.all)
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn vm(arguments: &Create, registry: &Registry) -> Result<VmState, StateError> {
    match (arguments.pid, &arguments.vm) {
        (Some(pid), _) => registry.find_process(pid),
        (None, name) => registry.find(name.as_deref().unwrap_or_default()),
    }
}
