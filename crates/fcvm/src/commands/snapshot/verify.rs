//! `fcvm snapshot verify`.

use std::process::ExitCode;

use crate::{
    cli::snapshot::Verify,
    exit,
    output::{Printer, sanitize},
    snapshot::{SnapshotError, SnapshotTag, Store},
};

pub(super) fn run(args: &Verify, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let tags = if args.tags.is_empty() {
        store.list()?.into_iter().map(|listed| listed.tag).collect()
    } else {
        args.tags.clone()
    };
    let (mut code, mut failed) = (ExitCode::SUCCESS, None);
    for tag in &tags {
        match damage(store, tag) {
            Ok(damage) if damage.is_empty() => {}
            Ok(damage) => {
                for error in damage {
                    printer.data(sanitize(&format!("{:#}", anyhow::Error::from(error))))?;
                }
                code = ExitCode::FAILURE;
            }
            // Removed since.
            Err(SnapshotError::Unknown { .. }) if args.tags.is_empty() => {}
            // The others may be looked at all the same.
            Err(error) => {
                let hint = error.hint();
                printer.error(&error.into(), hint.as_deref());
                failed = Some(ExitCode::from(exit::FAILED));
            }
        }
    }
    Ok(failed.unwrap_or(code))
}

/// What is wrong with a snapshot.
fn damage(store: &Store, tag: &SnapshotTag) -> Result<Vec<SnapshotError>, SnapshotError> {
    match store.get(tag) {
        Ok(snapshot) => snapshot.verify(),
        Err(error) if error.is_damage() => Ok(vec![error]),
        Err(error) => Err(error),
    }
}
