//! `fcvm image load`.

use std::{path::Path, process::ExitCode};

use crate::{
    cli::image::Load,
    image::{self, ImageError, Store, disk::HostBuilder},
    output::Printer,
};

/// Opened as a file is, whatever it is.
const STDIN: &str = "/dev/stdin";

pub(super) fn run(args: &Load, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let path = match &args.input {
        Some(path) => path.as_path(),
        None if printer.stdin_is_terminal() => return Err(ImageError::NoInput.into()),
        None => Path::new(STDIN),
    };
    for (image, names) in image::load(store, path, printer, &HostBuilder)? {
        for name in &names {
            printer.data(format_args!("Loaded image: {name}"))?;
        }
        if names.is_empty() {
            printer.data(format_args!("Loaded image: {}", image.id))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
