//! `fcvm snapshot prune`.

use std::{process::ExitCode, time::Duration};

use bytesize::ByteSize;
use jiff::Timestamp;

use crate::{
    cli::snapshot::Prune,
    output::Printer,
    snapshot::{SnapshotError, Store},
    warm::{Cache, Limits},
};

/// What fcvm prepared for later runs: nobody misses it, and so nobody is asked.
pub(super) fn prepared(args: &Prune, cache: &Cache, printer: &Printer) -> anyhow::Result<ExitCode> {
    let limits = match args.until {
        Some(time) => {
            let age = Timestamp::now().duration_since(time);
            Limits { bytes: None, age: Some(Duration::try_from(age).unwrap_or_default()) }
        }
        None => Limits { bytes: Some(0), age: None },
    };
    let removed = cache.prune(limits)?;
    for (key, _) in &removed {
        printer.data(format_args!("deleted: {key}"))?;
    }
    let bytes = removed.iter().map(|(_, bytes)| bytes).sum();
    printer.data(format_args!("freed: {}", ByteSize(bytes).display().si()))?;
    Ok(ExitCode::SUCCESS)
}

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
