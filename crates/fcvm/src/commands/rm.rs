//! `fcvm rm`.

use std::process::ExitCode;

use super::{
    stop::{Ending, end},
    targets,
};
use crate::{
    cli::rm::Args,
    output::Printer,
    state::{Registry, RuntimeDir, StateError},
    storage::DataDir,
};

/// Runs `fcvm rm`.
///
/// # Errors
/// Where the VMs cannot be listed or the result not be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let mut there = registry.list_all()?;
    there.retain(|vm| args.force || !vm.is_alive());
    let vms = targets::named_or(&args.vms, args.all, || there);
    targets::each(&vms, printer, |vm| {
        let vm = match registry.find(vm) {
            Err(StateError::Unknown { .. }) if args.force => return Ok(()),
            vm => vm?,
        };
        if args.force {
            end(&vm, Ending::Kill, &registry)?;
        }
        Ok(registry.remove_exited(&vm)?)
    })
}
