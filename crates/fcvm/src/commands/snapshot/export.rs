//! `fcvm snapshot export`.

use std::{
    fs::{self, File},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::ExitCode,
};

use crate::{
    cli::snapshot::Export,
    output::Printer,
    snapshot::{self, Snapshot, SnapshotError, Store},
};

/// Standard output.
const STDOUT: &str = "-";
/// A snapshot's memory may have secrets.
const MODE: u32 = 0o600;

pub(super) fn run(args: &Export, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let snapshot = store.get(&args.tag)?;
    match args.output.as_deref().filter(|path| *path != Path::new(STDOUT)) {
        Some(path) => to_file(&snapshot, path)?,
        None => {
            let stdout = printer.bytes().ok_or(SnapshotError::Terminal)?;
            snapshot::export(&snapshot, Path::new(STDOUT), stdout)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a file, which goes where that fails; what is no file (a pipe, say) is written to as it is.
fn to_file(snapshot: &Snapshot, path: &Path) -> Result<(), SnapshotError> {
    let failed = |source| SnapshotError::WriteArchive { path: path.to_owned(), source };
    let file =
        File::options().create(true).truncate(true).write(true).mode(MODE).open(path).map_err(failed)?;
    let regular = file.metadata().map_err(failed)?.is_file();
    let written = snapshot::export(snapshot, path, &file);
    if written.is_err()
        && regular
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "an unfinished archive is left behind");
    }
    written
}
