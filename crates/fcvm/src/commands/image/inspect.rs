//! `fcvm image inspect`.

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use serde::Serialize;

use crate::{
    cli::image::Inspect,
    hash::Digest,
    image::{
        Details, FullName, Origin, Reference, Store,
        spec::{History, RunConfig},
    },
    output::{Printer, Template},
};

/// An image, with Podman's names of fields and a few of our own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Image {
    /// Without `sha256:`, as Podman has it.
    id: String,
    digest: Digest,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    created: Option<String>,
    architecture: String,
    os: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<String>,
    /// Of the image's files, in bytes.
    size: u64,
    config: RunConfig,
    #[serde(rename = "RootFS")]
    root_fs: RootFs,
    manifest_type: Option<String>,
    history: Vec<History>,
    disk: Disk,
    /// Where each name comes from.
    origin: BTreeMap<String, From>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs {
    #[serde(rename = "Type")]
    kind: String,
    layers: Vec<Digest>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Disk {
    path: PathBuf,
    size: u64,
    /// Of the host's disk, in bytes.
    allocated: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct From {
    kind: Origin,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<Digest>,
}

pub(super) fn run(args: &Inspect, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let mut images = Vec::new();
    for image in &args.images {
        images.push(of(store.details(&store.lookup(image)?, printer)?)?);
    }
    let Some(template) = template else {
        printer.data(serde_json::to_string_pretty(&images)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    for image in images {
        printer.data(template.render(&[&serde_json::to_value(image)?])?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of(details: Details) -> anyhow::Result<Image> {
    let Details { image, names, manifest } = details;
    let repository = |name: &FullName| format!("{}/{}", name.registry(), name.repository());
    let tagged = |name: &&FullName| matches!(name.reference(), Reference::Tag(_));
    let tags = names.iter().map(|(name, _)| name).filter(tagged).map(ToString::to_string).collect();
    let mut digests: Vec<_> = names
        .iter()
        .flat_map(|(name, of)| {
            let upstream = of.upstream.filter(|_| of.origin == Origin::Registry);
            [Some(image.digest), upstream].map(|digest| digest.map(|digest| (repository(name), digest)))
        })
        .flatten()
        .map(|(repository, digest)| format!("{repository}@{digest}"))
        .collect();
    digests.sort_unstable();
    digests.dedup();
    let origin = names
        .into_iter()
        .map(|(name, of)| (name.to_string(), From { kind: of.origin, upstream: of.upstream }));
    Ok(Image {
        id: image.id.hex(),
        digest: image.digest,
        repo_tags: tags,
        repo_digests: digests,
        created: image.config.created,
        architecture: image.config.platform.architecture,
        os: image.config.platform.os,
        variant: image.config.platform.variant,
        size: image.unpacked,
        config: image.config.config,
        root_fs: RootFs { kind: image.config.rootfs.kind, layers: image.config.rootfs.diff_ids },
        manifest_type: manifest.media_type,
        history: image.config.history,
        disk: Disk {
            size: std::fs::metadata(&image.disk)?.len(),
            path: image.disk,
            allocated: image.allocated,
        },
        origin: origin.collect(),
    })
}
