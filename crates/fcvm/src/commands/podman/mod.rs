//! `fcvm podman`.

mod run;

use std::process::ExitCode;

use crate::{cli::podman::Command, output::Printer, storage::DataDir};

/// Runs `fcvm podman`.
///
/// # Errors
/// What the command could not do.
pub fn run(command: Command, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(arguments) => run::run(*arguments, data, printer),
    }
}
