//! `fcvm logout`.

use std::process::ExitCode;

use crate::{cli::login::Logout as Args, image::credentials::Credentials, output::Printer};

/// Runs `fcvm logout`.
///
/// # Errors
/// Where there is no login, or it cannot be removed.
pub fn run(args: &Args, printer: &Printer) -> anyhow::Result<ExitCode> {
    let credentials = Credentials::of_user(args.authfile.clone());
    if args.all {
        credentials.remove_all()?;
        printer.note("logged out of all registries");
    } else {
        credentials.remove(&args.registry.to_string())?;
        printer.note(format_args!("logged out of {}", args.registry));
    }
    Ok(ExitCode::SUCCESS)
}
