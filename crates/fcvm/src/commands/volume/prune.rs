//! `fcvm volume prune`.

use std::process::ExitCode;

use crate::{
    cli::volume::Prune,
    output::Printer,
    volume::{Listed, VolumeError, VolumeStore},
};

pub(super) fn run(args: &Prune, store: &VolumeStore, printer: &Printer) -> anyhow::Result<ExitCode> {
    if !args.force && !printer.confirm("this removes all volumes that no VM has, with what is in them")? {
        return Err(VolumeError::NotConfirmed.into());
    }
    for Listed { name, .. } in store.list()? {
        match store.remove(&name) {
            Ok(()) => printer.data(name)?,
            // Somebody else was faster.
            Err(VolumeError::InUse { .. } | VolumeError::Unknown { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ExitCode::SUCCESS)
}
