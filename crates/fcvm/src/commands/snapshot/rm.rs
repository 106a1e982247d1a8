//! `fcvm snapshot rm`.

use std::process::ExitCode;

use crate::{
    cli::snapshot::Rm,
    commands::each,
    output::Printer,
    snapshot::{SnapshotError, Store},
};

pub(super) fn run(args: &Rm, store: &Store, printer: &Printer) -> ExitCode {
    each(&args.tags, printer, |tag| match store.remove(tag) {
        Ok(()) => Ok(printer.data(tag)?),
        Err(SnapshotError::Unknown { .. }) if args.force => Ok(()),
        Err(error) => Err(error.into()),
    })
}
