//! `fcvm snapshot prune`.

use std::process::ExitCode;

use bytesize::ByteSize;

use crate::{
    cli::snapshot::Prune,
    output::Printer,
    snapshot::{SnapshotError, Store},
};

pub(super) fn run(args: &Prune, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    if !args.force {
        let which = args.until.map(|time| format!(" made before {time}")).unwrap_or_default();
        if !printer.confirm(format_args!("this removes all snapshots{which} that nobody uses"))? {
            return Err(SnapshotError::NotConfirmed.into());
        }
    }
    let pruned = store.prune(args.until)?;
    for (tag, _) in &pruned.removed {
        printer.data(format_args!("deleted: {tag}"))?;
    }
    for tag in &pruned.in_use {
        printer.note(format_args!("snapshot `{tag}` is in use, and stays"));
    }
    let bytes = pruned.removed.iter().map(|(_, bytes)| bytes).sum();
    printer.data(format_args!("freed: {}", ByteSize(bytes).display().si()))?;
    Ok(ExitCode::SUCCESS)
}
