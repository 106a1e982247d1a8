//! `fcvm image rm`.

use std::process::ExitCode;

use crate::{
    cli::image::Rm,
    exit,
    image::{Force, ImageError, Removed, Store},
    output::Printer,
};

/// Removes what can be removed; each failure is told, and one of them makes the command fail.
pub(super) fn run(args: &Rm, store: &Store, printer: &Printer) -> ExitCode {
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
