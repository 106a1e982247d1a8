//! `fcvm image history`.

use std::process::ExitCode;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::image::History as Args,
    hash::Digest,
    image::{Details, Store, spec::History},
    output::{Printer, ago, table},
};

/// A step of an image's making.
#[derive(Debug, Serialize)]
struct Step {
    #[serde(flatten)]
    history: History,
    /// Of the layer as it is stored, in bytes; 0 where there is none.
    size: Option<u64>,
    layer: Option<Digest>,
}

pub(super) fn run(args: &Args, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let steps = steps(store.details(&store.lookup(&args.image)?, printer)?);
    if args.json {
        printer.data(serde_json::to_string_pretty(&steps)?)?;
    } else {
        let now = Timestamp::now();
        let rows: Vec<_> = steps.iter().map(|step| row(step, now)).collect();
        printer.data(table(["CREATED", "SIZE", "CREATED BY", "COMMENT"], &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Newest first. Layers belong to the steps that are not empty, in their order; an image whose
/// history does not fit its layers says nothing of sizes.
fn steps(details: Details) -> Vec<Step> {
    let Details { image, manifest, .. } = details;
    let history = image.config.history;
    let fits = history.iter().filter(|step| !step.empty_layer).count() == manifest.layers.len();
    let mut layers = manifest.layers.into_iter();
    let mut steps: Vec<_> = history
        .into_iter()
        .map(|history| {
            let layer = if history.empty_layer || !fits { None } else { layers.next() };
            let none = history.empty_layer.then_some(0);
            Step {
                history,
                size: layer.as_ref().map(|layer| layer.size).or(none),
                layer: layer.map(|layer| layer.digest),
            }
        })
        .collect();
    steps.reverse();
    steps
}

fn row(step: &Step, now: Timestamp) -> [String; 4] {
    const WIDTH: usize = 60;
    let time = step.history.created.as_deref().and_then(|time| time.parse::<Timestamp>().ok());
    let by = step.history.created_by.as_deref().unwrap_or_default();
    let by = match by.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}...", &by[..end]),
        None => by.to_owned(),
    };
    [
        time.map_or_else(|| "unknown".into(), |time| ago(now, time)),
        step.size.map_or_else(|| "unknown".into(), |size| ByteSize(size).display().si().to_string()),
        by,
        step.history.comment.clone().unwrap_or_default(),
    ]
}
