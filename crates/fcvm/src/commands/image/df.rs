//! `fcvm image df`.

use std::process::ExitCode;

use bytesize::ByteSize;
use serde::Serialize;

use crate::{
    cli::image::Df,
    hash::Digest,
    image::{Files, ImageUsage, Store, Usage},
    output::{Printer, table},
};

/// What `--json` shows. Sizes are in bytes of the host's disk.
#[derive(Debug, Serialize)]
struct Report {
    disks: Line,
    blobs: Line,
    /// Of the blobs, those that several images have.
    shared_blobs: Files,
    partial_downloads: Line,
    cache: Line,
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<Vec<Image>>,
}

#[derive(Debug, Serialize)]
struct Line {
    count: u64,
    in_use: u64,
    size: u64,
    reclaimable: u64,
}

#[derive(Debug, Serialize)]
struct Image {
    names: Vec<String>,
    id: Option<Digest>,
    digest: Digest,
    disk: u64,
    blobs: u64,
    shared: u64,
    in_use: bool,
}

pub(super) fn run(args: &Df, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let usage = store.usage()?;
    let report = report(&usage, args.verbose);
    if args.json {
        printer.data(serde_json::to_string_pretty(&report)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let row = |kind: &str, line: &Line| {
        let (size, reclaimable) = (bytes(line.size), bytes(line.reclaimable));
        [kind.to_owned(), line.count.to_string(), line.in_use.to_string(), size, reclaimable]
    };
    let rows = [
        row("disks", &report.disks),
        row("blobs", &report.blobs),
        row("partial downloads", &report.partial_downloads),
        row("cache", &report.cache),
    ];
    printer.data(table(["KIND", "TOTAL", "IN USE", "SIZE", "RECLAIMABLE"], &rows))?;
    if args.verbose {
        let rows: Vec<_> = usage.images.iter().map(image_row).collect();
        printer.data("")?;
        printer.data(table(["IMAGE", "ID", "DISK", "BLOBS", "SHARED", "IN USE"], &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn report(usage: &Usage, verbose: bool) -> Report {
    let images = || usage.images.iter();
    let disk = |image: &ImageUsage| image.disk;
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let (all, partial) = (usage.blobs.all, usage.blobs.partial);
    let spare = |total: Files, part: Files| {
        (total.count.saturating_sub(part.count), total.bytes.saturating_sub(part.bytes))
    };
    // Unfinished ones are told apart.
    let (idle, idle_bytes) = spare(usage.reclaimable_blobs, partial);
    Report {
        disks: Line {
            count: count(images().count()),
            in_use: count(images().filter(|image| image.in_use).count()),
            size: images().map(disk).sum(),
            reclaimable: images().filter(|image| !image.in_use).map(disk).sum(),
        },
        blobs: Line {
            count: all.count,
            in_use: all.count.saturating_sub(idle),
            size: all.bytes,
            reclaimable: idle_bytes,
        },
        shared_blobs: usage.blobs.shared,
        partial_downloads: whole(partial),
        cache: whole(usage.cache),
        images: verbose.then(|| images().map(image).collect()),
    }
}

/// Of what may all go.
fn whole(files: Files) -> Line {
    Line { count: files.count, in_use: 0, size: files.bytes, reclaimable: files.bytes }
}

fn image(image: &ImageUsage) -> Image {
    Image {
        names: image.names.iter().map(ToString::to_string).collect(),
        id: image.id,
        digest: image.digest,
        disk: image.disk,
        blobs: image.blobs,
        shared: image.shared,
        in_use: image.in_use,
    }
}

fn image_row(image: &ImageUsage) -> [String; 6] {
    [
        image.names.first().map_or_else(|| "<none>".into(), ToString::to_string),
        image.id.map_or_else(|| "damaged".into(), |id| id.short()),
        bytes(image.disk),
        bytes(image.blobs),
        bytes(image.shared),
        if image.in_use { "yes" } else { "no" }.into(),
    ]
}

fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().si().to_string()
}
