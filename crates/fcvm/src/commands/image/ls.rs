//! `fcvm image ls`.

use std::process::ExitCode;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::image::Ls,
    hash::Digest,
    image::{Listed, Store, StoredImage},
    output::{Printer, ago, table},
};

/// A line of `fcvm image ls --json`.
#[derive(Debug, Serialize)]
struct Line {
    names: Vec<String>,
    id: Digest,
    digest: Digest,
    /// Of the image's files, in bytes.
    size: u64,
    /// What the image takes of the host's disk, in bytes.
    disk_size: u64,
    /// When the image was made, as it says itself.
    created: Option<String>,
    /// When it was stored here, in seconds since 1970.
    stored: u64,
}

pub(super) fn run(args: &Ls, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let mut images: Vec<(Vec<String>, StoredImage)> = Vec::new();
    for Listed { digest, names, image } in store.list()? {
        match image {
            Ok(image) => images.push((names.iter().map(ToString::to_string).collect(), image)),
            Err(error) => printer.warn(format_args!("image {} is left out: {error}", digest.short())),
        }
    }
    // Named ones first, by name.
    images.sort_by(|(left, a), (right, b)| {
        (left.is_empty(), left, a.digest).cmp(&(right.is_empty(), right, b.digest))
    });
    if args.json {
        let lines: Vec<_> = images.into_iter().map(|(names, image)| line(names, image)).collect();
        printer.data(serde_json::to_string_pretty(&lines)?)?;
    } else if args.quiet {
        for (_, image) in &images {
            printer.data(image.id.short())?;
        }
    } else {
        let now = Timestamp::now();
        let rows = images.iter().flat_map(|(names, image)| rows(names, image, now)).collect::<Vec<_>>();
        printer.data(table(["NAME", "TAG", "ID", "CREATED", "SIZE"], &rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn line(names: Vec<String>, image: StoredImage) -> Line {
    Line {
        names,
        id: image.id,
        digest: image.digest,
        size: image.unpacked,
        disk_size: image.allocated,
        created: image.config.created,
        stored: image.stored,
    }
}

/// A row for each name, as Podman lists them.
fn rows(names: &[String], image: &StoredImage, now: Timestamp) -> Vec<[String; 5]> {
    let said = image.config.created.as_deref().and_then(|created| created.parse::<Timestamp>().ok());
    // 1970 is how reproducible images say that it does not matter.
    let created = said
        .filter(|time| time.as_second() > 1)
        .or_else(|| i64::try_from(image.stored).ok().and_then(|stored| Timestamp::from_second(stored).ok()));
    let row = |name: &str, tag: &str| {
        let created = created.map_or_else(|| "unknown".into(), |time| ago(now, time));
        let size = ByteSize(image.unpacked).display().si().to_string();
        [name.to_owned(), tag.to_owned(), image.id.short(), created, size]
    };
    if names.is_empty() {
        return vec![row("<none>", "<none>")];
    }
    names
        .iter()
        .map(|name| match (name.split_once('@'), name.rsplit_once(':')) {
            (Some((name, _)), _) => row(name, "<none>"),
            (None, Some((name, tag))) => row(name, tag),
            (None, None) => row(name, ""),
        })
        .collect()
}
