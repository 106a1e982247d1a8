//! `fcvm image tag`.

use std::process::ExitCode;

use crate::{
    cli::image::Tag,
    image::{ImageError, NameRecord, Store},
};

pub(super) fn run(args: &Tag, store: &Store) -> anyhow::Result<ExitCode> {
    let image = store.lookup(&args.image)?;
    let full = |name: &crate::image::ImageName| {
        name.local().map_err(|source| ImageError::ImportName { name: name.to_string(), source })
    };
    let names = args.names.iter().map(full).collect::<Result<Vec<_>, _>>()?;
    for name in &names {
        store.tag(name, NameRecord::local(image))?;
    }
    Ok(ExitCode::SUCCESS)
}
