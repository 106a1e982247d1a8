//! `fcvm volume create`.

use std::process::ExitCode;

use crate::{
    cli::volume::Create,
    output::Printer,
    volume::{VolumeName, VolumeStore},
};

pub(super) fn run(args: Create, store: &VolumeStore, printer: &Printer) -> anyhow::Result<ExitCode> {
    let name = match args.name {
        Some(name) => name,
        None => VolumeName::generate()?,
    };
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (text.clone(), String::new()),
    };
    let made = store.create(&name, args.label.iter().map(pair).collect())?;
    printer.data(made.name)?;
    Ok(ExitCode::SUCCESS)
}
