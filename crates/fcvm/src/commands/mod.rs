//! One file per command: arguments in, calls to the domain modules, output.

pub mod completions;
mod container_view;
pub mod cp;
mod environment;
pub mod events;
pub mod exec;
pub mod fork;
pub mod gc;
pub mod image;
pub mod inspect;
pub mod kill;
pub mod login;
pub mod logout;
pub mod logs;
pub mod ls;
pub mod podman;
pub mod port;
pub mod rename;
pub mod restart;
pub mod rm;
pub mod setup;
pub mod snapshot;
pub mod stats;
pub mod stop;
mod targets;
pub mod top;
pub mod volume;
pub mod wait;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::{
    cli::{Cli, Command},
    exit,
    image::{Pruning, Store},
    output::{self, Printer},
    snapshot::Store as SnapshotStore,
    state::{Registry, RuntimeDir, StateError},
    storage::DataDir,
    warm::Cache,
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
            ExitCode::from(exit::code(&error))
        }
    }
}

fn run(cli: Cli, printer: &Printer) -> anyhow::Result<ExitCode> {
    // It is for the shell's start, where nothing else may happen.
    if let Command::Completions(args) = &cli.command {
        return completions::run(args, printer);
    }
    let role = podman::Role::of_this_process();
    let data = DataDir::open(cli.global.data_dir)?;
    // It says what it removes.
    if let Command::Gc(args) = &cli.command {
        return gc::run(args, &data, printer);
    }
    // A command in a VM that runs needs nothing of what others left, and is to be quick.
    if !matches!(cli.command, Command::Exec(_)) {
        collect_garbage(&data);
    }
    match cli.command {
        Command::Podman(command) => podman::run(command, role, &data, printer),
        Command::Ls(args) => ls::run(&args, &data, printer),
        Command::Exec(args) => exec::run(args, &data, printer),
        Command::Fork(args) => fork::run(*args, role, &data, printer),
        Command::Cp(args) => cp::run(args, &data, printer),
        Command::Logs(args) => logs::run(args, &data, printer),
        Command::Stop(args) => stop::run(&args, &data, printer),
        Command::Top(args) => top::run(args, &data),
        Command::Restart(args) => restart::run(&args, &data, printer),
        Command::Kill(args) => kill::run(&args, &data, printer),
        Command::Wait(args) => wait::run(&args, &data, printer),
        Command::Rename(args) => rename::run(&args, &data),
        Command::Rm(args) => rm::run(&args, &data, printer),
        Command::Inspect(args) => inspect::run(&args, &data, printer),
        Command::Stats(args) => stats::run(&args, &data, printer),
        Command::Port(args) => port::run(&args, &data, printer),
        Command::Events(args) => events::run(&args, &data, printer),
        Command::Gc(args) => gc::run(&args, &data, printer),
        Command::Login(args) => login::run(&args, printer),
        Command::Logout(args) => logout::run(&args, printer),
        Command::Image(command) => image::run(command, &data, printer),
        Command::Snapshot(command) => snapshot::run(command, role, &data, printer),
        Command::Volume(command) => volume::run(command, &data, printer),
        Command::Setup(args) => setup::run(args, &data, printer),
        Command::Completions(args) => completions::run(&args, printer),
    }
}

/// Waits for what is done asynchronously. Threads that wait for a reader or for input end with
/// the process.
///
/// # Errors
/// Where the runtime cannot be started.
fn block_on<F: Future>(future: F) -> anyhow::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("failed to start the runtime")?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

/// Does something to each of several things; each failure is told, and one of them makes the command fail.
fn each<T>(all: &[T], printer: &Printer, mut act: impl FnMut(&T) -> anyhow::Result<()>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for one in all {
        if let Err(error) = act(one) {
            printer.error(&error, exit::hint(&error).as_deref());
            code = ExitCode::from(exit::FAILED);
        }
    }
    code
}

/// Commands first remove what a killed one left.
fn collect_garbage(data: &DataDir) {
    match Registry::new(data, RuntimeDir::from_env()).collect_garbage() {
        Ok(_) => {}
        // That is for the other to do; commands that need VMs say so.
        Err(error @ StateError::OtherUser { .. }) => tracing::debug!(%error, "no garbage is collected"),
        Err(error) => tracing::warn!(%error, "what dead VMs left could not be removed"),
    }
    if let Err(error) = Store::open(data).gc(Pruning::Real) {
        tracing::warn!(%error, "what interrupted work on images left could not be removed");
    }
    if let Err(error) = SnapshotStore::open(data).collect_garbage() {
        tracing::warn!(%error, "what interrupted work on snapshots left could not be removed");
    }
    if let Err(error) = Cache::open(data).store().collect_garbage() {
        tracing::warn!(%error, "what interrupted work on prepared VMs left could not be removed");
    }
}
