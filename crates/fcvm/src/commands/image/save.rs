//! `fcvm image save`.

use std::{fs::File, path::Path, process::ExitCode};

use crate::{
    cli::image::Save,
    image::{
        self, FullName, ImageError, ImageRef, NameRecord, Reference, SaveFormat, SaveTarget, Saved, Store,
    },
    output::Printer,
};

pub(super) fn run(args: &Save, store: &Store, printer: &Printer) -> anyhow::Result<ExitCode> {
    let mut images: Vec<Saved> = Vec::new();
    for image in &args.images {
        let (digest, name) = found(image, store)?;
        match images.iter_mut().find(|image| image.digest == digest) {
            Some(image) => image.names.extend(name.filter(|name| !image.names.contains(name))),
            None => images.push(Saved { digest, names: name.into_iter().collect() }),
        }
    }
    match (&args.output, args.format) {
        (None, SaveFormat::OciDir) => return Err(ImageError::NoOutput.into()),
        (Some(directory), SaveFormat::OciDir) => {
            image::save(store, &images, args.format, SaveTarget::Directory(directory))?;
        }
        (Some(path), format) => to_file(path, store, &images, format)?,
        (None, format) => {
            let stdout = printer.bytes().ok_or(ImageError::Terminal)?;
            let target = SaveTarget::Stream(Path::new("-"), Box::new(stdout));
            image::save(store, &images, format, target)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The image, and the name it was found by.
fn found(image: &ImageRef, store: &Store) -> anyhow::Result<(crate::hash::Digest, Option<FullName>)> {
    let by_name = match image {
        ImageRef::Name(name) => store.find_name(name)?,
        _ => None,
    };
    Ok(match by_name {
        Some((name, NameRecord { image, .. })) => {
            (image, Some(name).filter(|name| matches!(name.reference(), Reference::Tag(_))))
        }
        None => (store.lookup(image)?, None),
    })
}

/// Writes a file, which goes where that fails; what is no file (a pipe, say) is written to as it is.
fn to_file(path: &Path, store: &Store, images: &[Saved], format: SaveFormat) -> anyhow::Result<()> {
    let failed = |source| ImageError::Write { path: path.to_owned(), source };
    let file = File::create(path).map_err(failed)?;
    let regular = file.metadata().map_err(failed)?.is_file();
    let saved = image::save(store, images, format, SaveTarget::Stream(path, Box::new(&file)));
    if saved.is_err()
        && regular
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "an unfinished archive is left behind");
    }
    Ok(saved?)
}
