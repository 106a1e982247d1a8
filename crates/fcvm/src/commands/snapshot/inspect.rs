//! `fcvm snapshot inspect`.

use std::{path::PathBuf, process::ExitCode};

use serde::Serialize;

use crate::{
    cli::snapshot::Inspect,
    output::{Printer, Template},
    snapshot::{Manifest, Snapshot, Store},
    state::VmName,
};

/// A snapshot as it describes itself, and what there is besides.
#[derive(Debug, Serialize)]
struct View<'a> {
    #[serde(flatten)]
    manifest: &'a Manifest,
    /// Its directory.
    path: PathBuf,
    /// What it takes of the host's disk.
    allocated_bytes: u64,
    /// The live VMs that came from it.
    clones: Vec<VmName>,
}

pub(super) fn run(args: &Inspect, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let snapshots = args.tags.iter().map(|tag| store.get(tag)).collect::<Result<Vec<_>, _>>()?;
    let views: Vec<_> = snapshots.iter().map(|snapshot| view(snapshot, store)).collect();
    match template {
        None => printer.data(serde_json::to_string_pretty(&views)?)?,
        Some(template) => {
            for view in &views {
                printer.data(template.render(&[&serde_json::to_value(view)?])?)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn view<'a>(snapshot: &'a Snapshot, store: &Store) -> View<'a> {
    View {
        manifest: snapshot.manifest(),
        path: snapshot.directory().to_owned(),
        allocated_bytes: snapshot.allocated(),
        clones: store.clones(snapshot.tag()),
    }
}
