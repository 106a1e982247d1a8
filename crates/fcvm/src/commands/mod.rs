//! One file per command: arguments in, calls to the domain modules, output.

mod environment;
pub mod image;
pub mod login;
pub mod logout;
pub mod ls;
pub mod podman;
pub mod setup;

use std::process::ExitCode;

use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    exit,
    image::Store,
    output::{self, Printer},
    state::{Registry, RuntimeDir},
    storage::DataDir,
};

/// Parses the command line, runs the command and turns its end into an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    output::init_logging(cli.global.log_format);
    let printer = Printer::from_env();
    match run(cli, &printer) {
        Ok(code) => code,
        Err(error) => {
            if let Some(code) = exit::interruption(&error) {
                return ExitCode::from(code);
            }
            printer.error(&error, exit::hint(&error).as_deref());
            ExitCode::from(exit::FAILED)
        }
    }
}

fn run(cli: Cli, printer: &Printer) -> anyhow::Result<ExitCode> {
    let data = DataDir::open(cli.global.data_dir)?;
    collect_garbage(&data);
    match cli.command {
        Command::Podman(command) => podman::run(command, &data, printer),
        Command::Ls(args) => ls::run(&args, &data, printer),
        Command::Login(args) => login::run(&args, printer),
        Command::Logout(args) => logout::run(&args, printer),
        Command::Image(command) => image::run(command, &data, printer),
        Command::Setup(args) => setup::run(args, &data, printer),
    }
}

/// Every command first removes what a killed one left.
fn collect_garbage(data: &DataDir) {
    if let Err(error) = Registry::new(data, RuntimeDir::from_env()).collect_garbage() {
        tracing::warn!(%error, "what dead VMs left could not be removed");
    }
    if let Err(error) = Store::open(data).gc() {
        tracing::warn!(%error, "what interrupted work on images left could not be removed");
    }
}
