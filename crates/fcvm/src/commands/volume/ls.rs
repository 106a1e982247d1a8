//! `fcvm volume ls`.

use std::process::ExitCode;

use jiff::Timestamp;

use super::inspect::view;
use crate::{
    cli::volume::Ls,
    output::{Printer, ago, table},
    volume::{Listed, Stored, VolumeStore},
};

pub(super) fn run(args: &Ls, store: &VolumeStore, printer: &Printer) -> anyhow::Result<ExitCode> {
    let mut volumes = Vec::new();
    for Listed { name, volume } in store.list()? {
        match volume {
            Ok(volume) => volumes.push((store.in_use(&name)?, volume)),
            Err(error) => {
                let error = anyhow::Error::from(error);
                printer.warn(format_args!("volume {name} is left out: {error:#}"));
            }
        }
    }
    if args.json {
        let all: Vec<_> = volumes.iter().map(|(in_use, volume)| view(volume, *in_use)).collect();
        printer.data(serde_json::to_string_pretty(&all)?)?;
    } else if args.quiet {
        for (_, volume) in &volumes {
            printer.data(&volume.name)?;
        }
    } else {
        let now = Timestamp::now();
        let row = |(in_use, volume): &(bool, Stored)| {
            let used = if *in_use { "yes" } else { "no" };
            let path = volume.data.display().to_string();
            [volume.name.to_string(), ago(now, volume.created), used.into(), path]
        };
        let rows: Vec<_> = volumes.iter().map(row).collect();
        printer.data(table(["NAME", "CREATED", "IN USE", "PATH"], &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}
