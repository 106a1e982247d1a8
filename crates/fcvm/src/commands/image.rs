//! `fcvm image`.

use std::{env, process::ExitCode};

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use crate::{
    cli::image::{Command, Import, Ls, Pull, Rm},
    exit,
    hash::Digest,
    image::{
        self, Force, ImageError, ImportOptions, Listed, Removed, Store, StoredImage, Words,
        disk::HostBuilder,
        spec::{Platform, RunConfig},
    },
    output::{Printer, ago, table},
    storage::DataDir,
};

/// Runs `fcvm image`.
///
/// # Errors
/// What the command could not do.
pub fn run(command: Command, data: &DataDir, printer: &Printer) -> anyhow::Result<ExitCode> {
    let store = Store::open(data);
    match command {
        Command::Import(args) => import(*args, &store, printer),
        Command::Ls(args) => ls(&args, &store, printer),
        Command::Pull(args) => pull(&args, &store, printer),
        Command::Rm(args) => Ok(rm(&args, &store, printer)),
    }
}

fn import(args: Import, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
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
        },
        platform: args.platform.unwrap_or_else(Platform::host),
        created: image::created_from_env(env::var("SOURCE_DATE_EPOCH").ok().as_deref())?,
    };
    let stored = image::import(store, &args.name, &args.tarball, options, printer)?;
    printer.data(stored.id)?;
    Ok(ExitCode::SUCCESS)
}

fn pull(args: &Pull, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let access = args.access.to_access();
    let quiet = Printer::quiet();
    let told = if args.quiet { &quiet } else { printer };
    for image in &args.images {
        let stored = image::resolve(image, args.policy, store, &access, told, &HostBuilder)?;
        printer.data(stored.id)?;
    }
    Ok(ExitCode::SUCCESS)
}

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

fn ls(args: &Ls, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
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

/// Removes what can be removed; each failure is told, and one of them makes the command fail.
fn rm(args: &Rm, store: &Store, printer: &Printer) -> ExitCode {
    let force = if args.force { Force::Yes } else { Force::No };
    let mut code = ExitCode::SUCCESS;
    for image in &args.images {
        let told = match store.remove(image, force) {
            Ok(Removed::Name(name)) => printer.data(format_args!("untagged: {name}")),
            Ok(Removed::Image(digest, names)) => names
                .iter()
                .try_for_each(|name| printer.data(format_args!("untagged: {name}")))
                .and_then(|()| printer.data(format_args!("deleted: {digest}"))),
            Err(ImageError::Unknown { .. }) if args.force => Ok(()),
            Err(error) => {
                let error = anyhow::Error::from(error);
                printer.error(&error, exit::hint(&error).as_deref());
                code = ExitCode::from(exit::FAILED);
                Ok(())
            }
        };
        if let Err(error) = told {
            tracing::warn!(%error, "failed to write to standard output");
        }
    }
    code
}
