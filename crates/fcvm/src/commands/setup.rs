//! `fcvm setup`.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytesize::ByteSize;
use serde::Serialize;

use crate::{
    cli::setup::{Args, Sources},
    output::Printer,
    setup::{
        self, Assets, Fetch, Overrides, Rebuild, SetupError,
        plan::{DEFAULT_PLAN, plan_files},
        preflight,
    },
    storage::{AtomicFile, DataDir},
};

impl From<Sources> for Overrides {
    fn from(Sources { plan, agent, kernel }: Sources) -> Self {
        Self { plan, agent, kernel }
    }
}

/// Runs `fcvm setup`.
///
/// # Errors
/// What the command could not do.
pub fn run(args: Args, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let overrides = Overrides::from(args.sources);
    let json = args.json;
    if args.check {
        return check(data, &overrides, json, printer);
    }
    if args.generate_config {
        let path = generate(data, overrides.plan, args.force)?;
        printer.data(path.display())?;
    } else if args.prune {
        for path in setup::prune(data, &overrides)? {
            printer.note(format_args!("removed `{}`", path.display()));
        }
    } else {
        let rebuild = if args.force { Rebuild::Everything } else { Rebuild::Missing };
        let assets = setup::ensure(data, &overrides, rebuild, printer)?;
        let fetch = if args.with_firecracker { Fetch::Always } else { Fetch::WhereUseful };
        let firecracker = setup::ensure_firecracker(&overrides.plan(data)?, fetch, data, printer)?;
        summary(&assets, firecracker.as_deref(), json, printer)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn check(data: &DataDir, overrides: &Overrides, json: bool, printer: &Printer) -> anyhow::Result<ExitCode> {
    let report = preflight::check(data, overrides.agent.as_deref());
    if json {
        printer.data(serde_json::to_string_pretty(&report)?)?;
    } else {
        printer.data(&report)?;
    }
    Ok(if report.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the default plan to the file given, or where it is looked for first.
fn generate(data: &DataDir, given: Option<PathBuf>, force: bool) -> Result<PathBuf, SetupError> {
    let path = given.or_else(|| plan_files(data).into_iter().next());
    let path = path.unwrap_or_else(|| data.root().join(setup::plan::PLAN_FILE));
    if !force && path.exists() {
        return Err(SetupError::PlanExists { path });
    }
    match AtomicFile::write(&path, DEFAULT_PLAN.as_bytes()) {
        Ok(()) => Ok(path),
        Err(source) => Err(SetupError::Io { action: "write plan", path, source }),
    }
}

#[derive(Serialize)]
struct File<'a> {
    what: &'static str,
    path: &'a Path,
    /// Bytes.
    size: u64,
    /// Bytes that it takes on disk.
    allocated: u64,
}

fn summary(assets: &Assets, firecracker: Option<&Path>, json: bool, printer: &Printer) -> anyhow::Result<()> {
    let file = |(what, path)| -> io::Result<File<'_>> {
        let metadata = fs_err::metadata(path)?;
        Ok(File { what, path, size: metadata.len(), allocated: metadata.blocks() * 512 })
    };
    let firecracker = firecracker.map(|path| ("Firecracker", path));
    let files = assets.files().into_iter().chain(firecracker).map(file).collect::<io::Result<Vec<_>>>()?;
    if json {
        printer.data(serde_json::to_string_pretty(&files)?)?;
        return Ok(());
    }
    for File { what, path, size, allocated } in files {
        let sizes = format!("{}, {} on disk", ByteSize(size), ByteSize(allocated));
        printer.data(format_args!("{what:<17} {}  ({sizes})", path.display()))?;
    }
    Ok(())
}
