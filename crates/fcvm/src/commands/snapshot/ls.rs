//! `fcvm snapshot ls`.

use std::process::ExitCode;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::snapshot::Ls,
    output::{Printer, ago, table},
    snapshot::{Contents, Engine, Listed, SnapshotTag, Store},
};

/// Digits of an id that people are shown.
const SHORT: usize = 12;

/// A line of `fcvm snapshot ls --json`; of a damaged snapshot only what is known without it.
#[derive(Debug, Serialize)]
struct Line {
    tag: SnapshotTag,
    id: Option<String>,
    created: Option<Timestamp>,
    contents: Option<Contents>,
    /// As the user wrote it.
    image: Option<String>,
    hypervisor: Option<Engine>,
    /// Of the host's disk, in bytes.
    size: u64,
    /// How many live VMs came from it.
    clones: usize,
    /// Why it cannot be used, where it cannot be understood.
    error: Option<String>,
}

pub(super) fn run(args: &Ls, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let all = store.list()?;
    if args.quiet {
        for Listed { tag, .. } in all {
            printer.data(tag)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let clones = store.all_clones();
    let clones = |tag: &SnapshotTag| clones.get(tag.as_str()).map_or(0, Vec::len);
    let lines: Vec<_> = all.into_iter().map(|listed| line(clones(&listed.tag), listed)).collect();
    if args.json {
        printer.data(serde_json::to_string_pretty(&lines)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    for Line { tag, error, .. } in &lines {
        if let Some(error) = error {
            printer.warn(format_args!("snapshot `{tag}` cannot be used: {error}"));
        }
    }
    let now = Timestamp::now();
    let rows: Vec<_> = lines.iter().map(|line| row(line, now)).collect();
    let heading = ["TAG", "ID", "CREATED", "CONTENTS", "IMAGE", "HYPERVISOR", "SIZE", "CLONES"];
    printer.data(table(heading, &rows))?;
    Ok(ExitCode::SUCCESS)
}

fn line(clones: usize, Listed { tag, manifest, allocated }: Listed) -> Line {
    let (manifest, error) = match manifest {
        Ok(manifest) => (Some(manifest), None),
        Err(error) => (None, Some(crate::output::sanitize(&format!("{:#}", anyhow::Error::from(error))))),
    };
    let mut line = Line {
        tag,
        id: None,
        created: None,
        contents: None,
        image: None,
        hypervisor: None,
        size: allocated,
        clones,
        error,
    };
    if let Some(manifest) = manifest {
        line.id = Some(manifest.id);
        line.created = Some(manifest.created);
        line.contents = Some(manifest.contents);
        line.image = Some(manifest.image.reference);
        line.hypervisor = Some(manifest.hypervisor);
    }
    line
}

fn row(line: &Line, now: Timestamp) -> [String; 8] {
    let none = || "-".to_owned();
    let contents = match line.contents {
        Some(Contents::Machine) => "machine",
        Some(Contents::Disk) => "disk",
        None => "unusable",
    };
    [
        line.tag.to_string(),
        line.id.as_ref().map_or_else(none, |id| id.chars().take(SHORT).collect()),
        line.created.map_or_else(none, |created| ago(now, created)),
        contents.to_owned(),
        line.image.clone().unwrap_or_else(none),
        line.hypervisor.as_ref().map_or_else(none, Engine::title),
        ByteSize(line.size).display().si().to_string(),
        line.clones.to_string(),
    ]
}
