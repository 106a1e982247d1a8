//! `fcvm image verify`.

use std::process::ExitCode;

use crate::{
    cli::image::Verify,
    image::{FullName, NameRecord, Outcome, Repair, Store, registry},
    output::Printer,
};

pub(super) fn run(args: &Verify, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let access = args.connection.to_access();
    let refetch = |name: &FullName, record: &NameRecord| {
        registry::fetch_blobs(store, &name.with_digest(record.image), &access, printer)
    };
    let repair = if args.repair { Repair::Yes(Some(&refetch)) } else { Repair::No };
    let mut images = args.images.iter().map(|image| store.lookup(image)).collect::<Result<Vec<_>, _>>()?;
    if args.images.is_empty() {
        images = store.all_images()?;
    }
    let mut damaged = store.verify_images(&images, repair, printer)?;
    if args.images.is_empty() {
        damaged.extend(store.verify_unused_blobs(repair)?);
    }
    for damage in &damaged {
        printer.data(damage)?;
    }
    let good = damaged.iter().all(|damage| damage.outcome == Outcome::Repaired);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
