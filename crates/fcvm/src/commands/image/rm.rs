//! `fcvm image rm`.

use std::process::ExitCode;

use crate::{
    cli::image::Rm,
    commands::each,
    image::{Force, ImageError, Removed, Store},
    output::Printer,
};

pub(super) fn run(args: &Rm, store: &Store, printer: &Printer) -> ExitCode {
    let force = if args.force { Force::Yes } else { Force::No };
    each(&args.images, printer, |image| {
        match store.remove(image, force) {
            Ok(Removed::Name(name)) => printer.data(format_args!("untagged: {name}"))?,
            Ok(Removed::Image(digest, names)) => {
                for name in &names {
                    printer.data(format_args!("untagged: {name}"))?;
                }
                printer.data(format_args!("deleted: {digest}"))?;
            }
            Err(ImageError::Unknown { .. }) if args.force => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    })
}
