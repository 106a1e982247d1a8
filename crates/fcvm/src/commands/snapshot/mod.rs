//! `fcvm snapshot`: one file per subcommand.

mod export;
mod import;
mod inspect;
mod ls;
mod prune;
mod rm;
mod verify;

use std::process::ExitCode;

use crate::{cli::snapshot::Command, output::Printer, snapshot::Store, storage::DataDir};

/// Runs `fcvm snapshot`.
///
/// # Errors
/// What the command could not do.
pub fn run(command: Command, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let store = Store::open(data);
    match command {
        Command::Export(args) => export::run(&args, &store, printer),
        Command::Import(args) => import::run(&args, &store, data, printer),
        Command::Inspect(args) => inspect::run(&args, &store, printer),
        Command::Ls(args) => ls::run(&args, &store, printer),
        Command::Prune(args) => prune::run(&args, &store, printer),
        Command::Rm(args) => Ok(rm::run(&args, &store, printer)),
        Command::Verify(args) => verify::run(&args, &store, printer),
    }
}
