//! `fcvm completions`.

use std::process::ExitCode;

use clap::CommandFactory as _;

use crate::{
    cli::{Cli, completions::Args},
    output::{Printer, RawOutput},
};

/// Runs `fcvm completions`.
///
/// # Errors
/// Where the script cannot be written.
pub fn run(args: &Args, printer: &Printer) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "fcvm", &mut script);
    printer.raw(RawOutput::Stdout, &script)?;
    Ok(ExitCode::SUCCESS)
}
