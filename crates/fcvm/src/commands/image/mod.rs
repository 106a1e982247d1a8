//! `fcvm image`: one file per subcommand.

mod df;
mod history;
mod import;
mod inspect;
mod load;
mod ls;
mod prune;
mod pull;
mod rm;
mod save;
mod tag;
mod verify;

use std::process::ExitCode;

use crate::{cli::image::Command, image::Store, output::Printer, storage::DataDir};

/// Runs `fcvm image`.
///
/// # Errors
/// What the command could not do.
pub fn run(command: Command, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let store = Store::open(data);
    match command {
        Command::Df(args) => df::run(&args, &store, printer),
        Command::History(args) => history::run(&args, &store, printer),
        Command::Import(args) => import::run(*args, &store, printer),
        Command::Inspect(args) => inspect::run(&args, &store, printer),
        Command::Load(args) => load::run(&args, &store, printer),
        Command::Ls(args) => ls::run(&args, &store, printer),
        Command::Prune(args) => prune::run(&args, &store, printer),
        Command::Pull(args) => pull::run(&args, &store, printer),
        Command::Rm(args) => Ok(rm::run(&args, &store, printer)),
        Command::Save(args) => save::run(&args, &store, printer),
        Command::Tag(args) => tag::run(&args, &store),
        Command::Verify(args) => verify::run(&args, &store, printer),
    }
}
