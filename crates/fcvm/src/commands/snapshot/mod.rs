//! `fcvm snapshot`: one file per subcommand.

mod create;
mod export;
mod import;
mod inspect;
mod ls;
mod prune;
mod rm;
pub(super) mod run;
mod serve;
mod verify;

use std::process::ExitCode;

use anyhow::Context as _;

use super::podman::Role;
use crate::{
    cli::{clone::Run, snapshot::Command},
    output::Printer,
    process::Parent,
    snapshot::Store,
    storage::DataDir,
    vm::Starter,
    warm::Cache,
};

/// Runs `fcvm snapshot`.
///
/// # Errors
/// What the command could not do.
pub fn run(command: Command, role: Role, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let store = Store::open(data);
    match command {
        Command::Create(args) => create::run(&args, &store, data, printer),
        Command::Export(args) => export::run(&args, &store, printer),
        Command::Import(args) => import::run(&args, &store, data, printer),
        Command::Inspect(args) => inspect::run(&args, &store, printer),
        Command::Ls(args) if args.prepared => ls::run(&args, Cache::open(data).store(), data, printer),
        Command::Ls(args) => ls::run(&args, &store, data, printer),
        Command::Prune(args) if args.prepared => prune::prepared(&args, &Cache::open(data), printer),
        Command::Prune(args) => prune::run(&args, &store, printer),
        Command::Rm(args) => Ok(rm::run(&args, &store, printer)),
        Command::Run(args) => clone(*args, role, data, printer),
        Command::Serve(args) => serve::run(&args, &store, data, printer),
        Command::Verify(args) => verify::run(&args, &store, printer),
    }
}

/// A VM that goes on from a snapshot: as its owner, or as who starts that.
fn clone(arguments: Run, role: Role, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    match role {
        Role::Supervisor => {
            let parent = Parent::adopt().context("failed to become a VM's supervisor")?;
            crate::failpoint::reach("adopted");
            run::run(arguments, Starter::Parent(parent), data, printer)
        }
        _ if arguments.exec.is_some() => run::once(&arguments, data, printer),
        _ if arguments.detach => run::several(arguments.count, arguments.name.as_ref(), &[], data, printer),
        _ => run::run(arguments, Starter::User, data, printer),
    }
}
