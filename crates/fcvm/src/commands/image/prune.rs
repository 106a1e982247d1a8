//! `fcvm image prune`.

use std::process::ExitCode;

use bytesize::ByteSize;

use crate::{
    cli::image::Prune,
    image::{ImageError, Prunable, Pruned, Pruning, Store},
    output::Printer,
};

pub(super) fn run(args: &Prune, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let which = if args.all { Prunable::Unused } else { Prunable::Unnamed };
    let filters: Vec<_> = args.filter.iter().map(|filter| filter.0).collect();
    if args.dry_run {
        tell(&store.prune(which, &filters, Pruning::Dry)?, "would delete", "would free", printer)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !args.force {
        let what = match which {
            Prunable::Unnamed => "images without names",
            Prunable::Unused => "all images that no VM and no snapshot needs",
        };
        if !printer.confirm(format_args!("this removes {what}, and layers that no image has"))? {
            return Err(ImageError::NotConfirmed.into());
        }
    }
    tell(&store.prune(which, &filters, Pruning::Real)?, "deleted", "freed", printer)?;
    Ok(ExitCode::SUCCESS)
}

fn tell(pruned: &Pruned, deleted: &str, freed: &str, printer: &Printer) -> anyhow::Result<()> {
    for (digest, names) in &pruned.images {
        for name in names {
            printer.data(format_args!("{deleted}: {name}"))?;
        }
        printer.data(format_args!("{deleted}: {digest}"))?;
    }
    for (digest, holder) in &pruned.in_use {
        printer.note(format_args!("image {} is in use by {holder}, and stays", digest.short()));
    }
    let bytes = ByteSize(pruned.disks + pruned.blobs).display().si();
    printer.data(format_args!("{freed}: {bytes}"))?;
    Ok(())
}
