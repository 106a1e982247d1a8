//! Commands that do the same with several VMs.

use std::process::ExitCode;

use crate::{exit, output::Printer, state::VmState};

/// Does something with each, and goes on with the others where it fails; prints as what it was
/// given those with which it did not.
pub(super) fn each(
    vms: &[String],
    printer: &Printer,
    mut act: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for vm in vms {
        match act(vm) {
            Ok(()) => printer.data(vm)?,
            Err(error) => {
                printer.error(&error, exit::hint(&error).as_deref());
                code = ExitCode::from(exit::FAILED);
            }
        }
    }
    Ok(code)
}

/// What the user named, or all there are.
pub(super) fn named_or(named: &[String], all: bool, there: impl FnOnce() -> Vec<VmState>) -> Vec<String> {
    if all { there().iter().map(|vm| vm.name.to_string()).collect() } else { named.to_vec() }
}
