//! `fcvm snapshot import`.

use std::{fs::File, io, path::Path, process::ExitCode};

use crate::{
    cli::snapshot::Import,
    image,
    output::{Printer, sanitize},
    snapshot::{self, Manifest, SnapshotError, Store},
    state::MountKind,
    storage::DataDir,
};

/// Standard input.
const STDIN: &str = "-";

pub(super) fn run(
    args: &Import,
    store: &Store,
    data: &DataDir,
    printer: &Printer,
) -> anyhow::Result<ExitCode> {
    let (path, tag) = (&args.file, args.tag.as_ref());
    let snapshot = if path == Path::new(STDIN) {
        if printer.stdin_is_terminal() {
            return Err(SnapshotError::NoInput.into());
        }
        snapshot::import(store, path, io::stdin().lock(), tag)?
    } else {
        let file =
            File::open(path).map_err(|source| SnapshotError::ReadArchive { path: path.clone(), source })?;
        snapshot::import(store, path, file, tag)?
    };
    tell(snapshot.manifest(), data, printer)?;
    printer.data(snapshot.tag())?;
    Ok(ExitCode::SUCCESS)
}

/// Says what its clones will need of this host, and what they will have of it.
fn tell(manifest: &Manifest, data: &DataDir, printer: &Printer) -> anyhow::Result<()> {
    let image = &manifest.image;
    if image::Store::open(data).ready(&image.digest)?.is_none() {
        let reference = sanitize(&image.reference);
        printer.note(format_args!("its image `{reference}` ({}) is not here yet", image.digest.short()));
    }
    let machine = &manifest.machine;
    for asset in [&machine.kernel, &machine.initrd, &machine.base] {
        if !data.root().join(&asset.path).exists() {
            let path = sanitize(&asset.path.display().to_string());
            printer.note(format_args!("its `{path}` is not here: set this host up as the other one was"));
        }
    }
    for mount in &manifest.container.mounts {
        if mount.kind == MountKind::Bind {
            let how = if mount.writable { "" } else { ", read-only" };
            let path = sanitize(&mount.source.display().to_string());
            printer.note(format_args!("its clones are given `{path}` of this host{how}"));
        }
    }
    Ok(())
}
