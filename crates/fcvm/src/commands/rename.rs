//! `fcvm rename`.

use std::process::ExitCode;

use super::block_on;
use crate::{
    cli::rename::Args,
    state::{Registry, RuntimeDir},
    storage::DataDir,
    vm::control::Client,
};

/// Runs `fcvm rename`.
///
/// # Errors
/// Where there is no such VM, or the name is taken.
pub fn run(args: &Args, data: &DataDir) -> anyhow::Result<ExitCode> {
    let registry = Registry::new(data, RuntimeDir::from_env());
    let vm = registry.find(&args.vm)?;
    if vm.is_alive() {
        // Its record is its owner's.
        block_on(async { Client::connect(&vm, &registry).await?.rename(&args.name).await })??;
    } else {
        registry.rename_exited(&vm, &args.name)?;
    }
    Ok(ExitCode::SUCCESS)
}
