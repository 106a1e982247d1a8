//! `fcvm volume`: one file per subcommand.

mod create;
mod inspect;
mod ls;
mod prune;
mod rm;

use std::process::ExitCode;

use crate::{cli::volume::Command, output::Printer, storage::DataDir, volume::VolumeStore};

/// Runs `fcvm volume`.
///
/// # Errors
/// What the command could not do.
pub fn run(command: Command, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let store = VolumeStore::open(data);
    match command {
        Command::Create(args) => create::run(args, &store, printer),
        Command::Inspect(args) => inspect::run(&args, &store, printer),
        Command::Ls(args) => ls::run(&args, &store, printer),
        Command::Prune(args) => prune::run(&args, &store, printer),
        Command::Rm(args) => Ok(rm::run(&args, &store, printer)),
    }
}
