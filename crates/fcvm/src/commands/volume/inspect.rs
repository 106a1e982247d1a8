//! `fcvm volume inspect`.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::{
    cli::volume::Inspect,
    output::{Printer, Template},
    volume::{Stored, VolumeStore},
};

pub(super) fn run(args: &Inspect, store: &VolumeStore, printer: &Printer) -> anyhow::Result<ExitCode> {
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let mut volumes = Vec::new();
    for name in &args.volumes {
        volumes.push(view(&store.get(name)?, store.in_use(name)?));
    }
    match template {
        None => printer.data(serde_json::to_string_pretty(&volumes)?)?,
        Some(template) => {
            for volume in &volumes {
                printer.data(template.render(&[volume])?)?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A volume in Podman's words.
pub(super) fn view(volume: &Stored, in_use: bool) -> Value {
    json!({
        "Name": volume.name,
        "Driver": "local",
        "Mountpoint": volume.data,
        "CreatedAt": volume.created,
        "Labels": volume.labels,
        "Scope": "local",
        "Options": {},
        "InUse": in_use,
    })
}
