//! `fcvm gc`.

use std::process::ExitCode;

use crate::{
    cli::gc::Args,
    image::{Pruning, Store},
    output::Printer,
    snapshot,
    state::{Garbage, Registry, RuntimeDir},
    storage::DataDir,
    warm::Cache,
};

/// Runs `fcvm gc`.
///
/// # Errors
/// Where something cannot be looked at or removed, or the result not be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let store = Store::open(data);
    let snapshots = snapshot::Store::open(data);
    let cache = Cache::open(data);
    let prepared = cache.store();
    let (vms, files, halves) = if args.dry_run {
        (registry.garbage()?, store.gc(Pruning::Dry)?, snapshots.garbage()?)
    } else {
        (registry.remove_garbage()?, store.gc(Pruning::Real)?, snapshots.collect_garbage()?)
    };
    let unprepared = if args.dry_run { prepared.garbage()? } else { prepared.collect_garbage()? };
    let files = files.into_iter().chain(halves).chain(unprepared);
    for garbage in vms.into_iter().chain(files.map(Garbage::Path)) {
        printer.data(match garbage {
            Garbage::Vm(name) => format!("VM {name}, whose process died"),
            Garbage::Ended(name) => format!("VM {name}, whose process died, but for its record and log"),
            Garbage::Path(path) => path.display().to_string(),
            Garbage::Network(name) => format!("network {name}"),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}
