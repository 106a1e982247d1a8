//! `fcvm restart`.

use std::process::ExitCode;

use super::{block_on, targets};
use crate::{
    cli::restart::Args,
    output::Printer,
    state::{Registry, RuntimeDir},
    storage::DataDir,
    vm::control::Client,
};

/// Runs `fcvm restart`.
///
/// # Errors
/// Where the VMs cannot be listed or the result not be written.
pub fn run(args: &Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let running = registry.list()?;
    let vms = targets::named_or(&args.vms, args.all, || running);
    targets::each(&vms, printer, |vm| {
        let vm = registry.find(vm)?;
        block_on(async { Client::connect(&vm, &registry).await?.restart(args.time.0).await })??;
        Ok(())
    })
}
