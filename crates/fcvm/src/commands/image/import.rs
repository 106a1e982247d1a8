//! `fcvm image import`.

use std::{env, process::ExitCode};

use crate::{
    cli::image::Import,
    image::{
        self, ImportOptions, Store, Words,
        spec::{Platform, RunConfig},
    },
    output::Printer,
};

pub(super) fn run(args: Import, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let words = |words: Vec<Words>| words.into_iter().flat_map(|words| words.0).collect();
    let pair = |text: String| {
        text.split_once('=').map_or((text.clone(), String::new()), |(key, value)| (key.into(), value.into()))
    };
    let options = ImportOptions {
        run: RunConfig {
            user: args.user.unwrap_or_default(),
            env: args.env,
            entrypoint: words(args.entrypoint),
            cmd: words(args.cmd),
            working_dir: args.workdir.unwrap_or_default(),
            labels: args.label.into_iter().map(pair).collect(),
            ..RunConfig::default()
        },
        platform: args.platform.unwrap_or_else(Platform::host),
        created: image::created_from_env(env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
    };
    let stored = image::import(store, &args.name, &args.tarball, options, printer)?;
    printer.data(stored.id)?;
    Ok(ExitCode::SUCCESS)
}
