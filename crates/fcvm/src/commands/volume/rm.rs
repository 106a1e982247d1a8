//! `fcvm volume rm`.

use std::process::ExitCode;

use crate::{
    cli::volume::Rm,
    commands::each,
    output::Printer,
    volume::{VolumeError, VolumeStore},
};

pub(super) fn run(args: &Rm, store: &VolumeStore, printer: &Printer) -> ExitCode {
    each(&args.volumes, printer, |name| match store.remove(name) {
        Ok(()) => Ok(printer.data(name)?),
        Err(VolumeError::Unknown { .. }) if args.force => Ok(()),
        Err(error) => Err(error.into()),
    })
}
