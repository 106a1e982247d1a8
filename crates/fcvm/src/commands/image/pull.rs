//! `fcvm image pull`.

use std::process::ExitCode;

use crate::{
    cli::image::Pull,
    image::{self, Store, disk::HostBuilder},
    output::Printer,
};

pub(super) fn run(args: &Pull, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let access = args.access.to_access();
    let quiet = Printer::quiet();
    let told = if args.quiet { &quiet } else { printer };
    for image in &args.images {
        let stored = image::resolve(image, args.policy, store, &access, told, &HostBuilder)?;
        printer.data(stored.id)?;
    }
    Ok(ExitCode::SUCCESS)
}
